"""Bodies: whether all of a request's body has arrived. No database.

A client that is cut off in the middle of its upload leaves a prefix of its body, which may well be
a valid request for something else. WSGI servers pass that prefix on and Django does not compare its
length with ``Content-Length``. So it is compared here, before the key is claimed.

This module reads private attributes of Django's requests: ``_stream`` and ``_body``, and the
position of a ``LimitedStream``.
"""

from contextlib import suppress
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest

from .exceptions import IncompleteBody, LengthRequired

_CHUNK = 2**16
"""Bytes read at a time."""


def refuse_incomplete(request: HttpRequest, *, to_the_end: bool = False) -> None:
    """Raise an error unless the whole body has arrived, or is still to be read by the view.

    Args:
        to_the_end: Read what nothing has read yet, so that a missing end is noticed there, too.

    Raises:
        IncompleteBody: It is shorter than its ``Content-Length`` (RFC 9112, section 8).
        LengthRequired: Nothing says where it ends.
        RuntimeError: A middleware has replaced its stream by one that cannot be measured.
    """
    if _is_unbounded(request):
        raise LengthRequired
    declared = _declared(request)
    arrived = _arrived(request, to_the_end=to_the_end) if declared else None
    if arrived is not None and arrived < declared:
        raise IncompleteBody(f"Of {declared} bytes {arrived} have arrived.")


def is_incomplete(request: HttpRequest) -> bool:
    """Whether `refuse_incomplete` refuses a body that has been parsed."""
    try:
        refuse_incomplete(request)
    except (IncompleteBody, LengthRequired):
        return True
    return False


def _is_unbounded(request: HttpRequest) -> bool:
    """Whether the body is chunked where Django reads as many bytes as Content-Length says: none."""
    if isinstance(request, ASGIRequest) or request.META.get("CONTENT_LENGTH"):
        return False
    return "HTTP_TRANSFER_ENCODING" in request.META


def _declared(request: HttpRequest) -> int:
    """Return the length that the client has announced in bytes, 0 where it has announced none."""
    with suppress(ValueError):
        return int(request.META.get("CONTENT_LENGTH") or 0)
    return 0


def _arrived(request: Any, *, to_the_end: bool) -> int | None:
    """Return the number of bytes that have arrived; None where the view may still read some."""
    if hasattr(request, "_body"):
        return len(request._body)
    stream = request._stream
    # The only kind of body that Django and its parsers read without keeping it.
    is_parsed = request.content_type == "multipart/form-data" and hasattr(request, "_files")
    if isinstance(stream, LimitedStream):
        if not (to_the_end or is_parsed):
            return None
        with suppress(OSError):  # a connection that is reset sends no more, either
            while stream.read(_CHUNK):
                pass
        position: int = stream._pos  # type: ignore[attr-defined]
        return position
    if getattr(stream, "seekable", bool)():  # an ASGI server has sent it all before the view runs
        before = stream.tell()
        size: int = stream.seek(0, 2)
        stream.seek(before)
        return size
    if not (to_the_end or is_parsed):
        return None
    raise RuntimeError(
        f"A middleware has replaced the request's stream by {type(stream).__name__}, so nothing "
        "tells whether the whole body has arrived, and a part of it could be processed as if it "
        "were the request. Let the middleware read request.body instead."
    )
