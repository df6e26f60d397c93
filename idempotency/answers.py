"""Answers: what is kept of a response, and the response that a retry gets.

"Answer" is a response as it is kept; "response" is Django's. No database.
"""

import json
import logging
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import BadHeaderError, HttpResponseBase

from . import conf, signals
from .exceptions import ResponseNotKept

logger = logging.getLogger("idempotency")

REPLAYED_HEADER = "Idempotent-Replayed"

_NOT_KEPT = re.compile(
    r"set-cookie2?|date|age"
    # Connection-specific: RFC 9110, section 7.6.1.
    r"|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade"
    # Of that one request, or of that one moment.
    r"|server-timing|traceparent|tracestate|baggage|b3|x-b3-.*|x-cloud-trace-context"
    r"|(?:x-)?(?:request|correlation|trace)-id|x-amzn-(?:trace-id|requestid)"
    r"|(?:x-)?rate-?limit(?:-.*)?|preference-applied|idempotent-replayed",
    re.IGNORECASE,
)


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it is kept."""

    status_code: int
    headers: Headers
    body: bytes | None
    """None where it was too large to keep."""
    trace: bytes = b""
    """Of the request that it answered first, see `signals.current_trace`."""


def capture(request: HttpRequest, response: HttpResponseBase) -> Answer:
    """Take what is kept of a response. A streamed one is read, up to the limit, and stays whole.

    Raises:
        BadHeaderError: A header has a NUL, which PostgreSQL stores as little as servers send it.
    """
    headers = tuple(item for item in response.items() if not _NOT_KEPT.fullmatch(item[0]))
    for name, value in headers:
        if "\0" in name or "\0" in value:
            raise BadHeaderError(f"The view has set a header with a NUL in it: {name!r}.")
    body = _body(request, response)
    return Answer(response.status_code, headers, body, signals.current_trace())


def _body(request: HttpRequest, response: Any) -> bytes | None:
    limit = conf.settings.MAX_BODY_BYTES
    if not response.streaming:
        return bytes(response.content) if len(response.content) <= limit else None
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > limit:
        return None
    if response.is_async:
        return async_to_sync(_aread)(response, limit, may_stop=isinstance(request, ASGIRequest))
    return _read(response, limit)


def _read(response: StreamingHttpResponse, limit: int) -> bytes | None:
    stream: Any = iter(response.streaming_content)  # type: ignore[arg-type]
    chunks: list[bytes] = []
    size = 0
    for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            response.streaming_content = chain(chunks, stream)
            return None
    response.streaming_content = chunks
    return b"".join(chunks)


async def _aread(response: StreamingHttpResponse, limit: int, *, may_stop: bool) -> bytes | None:
    # Under WSGI the event loop ends with the view, and would close a stream that it has begun.
    stream: Any = aiter(response.streaming_content)  # type: ignore[arg-type]
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > limit and may_stop:
            response.streaming_content = _achain(chunks, stream)
            return None
    response.streaming_content = _achain(chunks)
    return b"".join(chunks) if size <= limit else None


async def _achain(
    chunks: Iterable[bytes], rest: AsyncIterable[bytes] | None = None
) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if rest is not None:
        async for chunk in rest:
            yield chunk


def dump(headers: Headers) -> str:
    """Write headers as they are stored: as JSON, a list of [name, value] in order."""
    return json.dumps(headers)


def load(stored: str) -> Headers:
    """Read stored headers.

    Raises:
        ResponseNotKept: Something else is stored, which `dump` has not written.
    """
    with _readable():
        headers = tuple((name, value) for name, value in json.loads(stored))
        if not all(isinstance(text, str) for pair in headers for text in pair):
            raise TypeError("A header is text.")
        return headers


@contextmanager
def _readable() -> Iterator[None]:
    """Let a row that somebody has tampered with say nothing: neither run again nor break."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        logger.exception("A stored answer cannot be read. Its key is refused until it is evicted.")
        raise ResponseNotKept("What was stored cannot be read.") from error


def replay(answer: Answer) -> HttpResponse:
    """Make a response of a stored answer: same status, headers and bytes.

    Raises:
        ResponseNotKept: The answer's body was too large to keep, or the row is not as it was kept.
    """
    if answer.body is None:
        raise ResponseNotKept
    response = HttpResponse(answer.body, status=answer.status_code)
    del response["Content-Type"]
    with _readable():
        for name, value in answer.headers:
            response[name] = value
    if 300 <= answer.status_code < 400 and "Location" in response:
        # As Django's redirects have it: its test client follows no other.
        response.url = response["Location"]  # type: ignore[attr-defined]
    response[REPLAYED_HEADER] = "true"
    return response
