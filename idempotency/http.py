"""The wire: a key out of a request, a stored answer out of and into a response, problems.

No database. "Answer" is a response as it is kept; "response" is Django's.
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import quote

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.cache import patch_vary_headers
from django.utils.encoding import escape_uri_path
from django.utils.http import url_has_allowed_host_and_scheme

from . import conf, forms, signals
from .exceptions import IdempotencyError, InvalidKey, ResponseNotKept, UnscopedCaller

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
PROBLEM_TYPE = "application/problem+json"
DRAFT = "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07"

_MAX_LENGTH = 255

_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_BARE_ITEM = (
    rf"(?:{_STRING}"
    r"|-?[0-9]{1,15}|-?[0-9]{1,12}\.[0-9]{1,3}"  # integer, decimal
    r"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+"  # token
    r"|:[A-Za-z0-9+/=]*+:|\?[01]|@-?[0-9]{1,15}"  # byte sequence, boolean, date
    r'|%"(?:[ !#$&-~]|%[0-9a-f]{2})*+")'  # display string
)
_QUOTED_KEY = re.compile(rf"({_STRING})(?:; *[a-z*][a-z0-9_.*-]*+(?:={_BARE_ITEM})?)*")
"""An Item of type String with parameters: RFC 9651, sections 3.3 and 3.3.3."""

_BARE_KEY = re.compile(r"[ !#-+\--~]+")
"""What clients send who never read the draft. A comma would be a list, or two headers joined."""

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:[,;]|$)', re.IGNORECASE)
"""The preference of RFC 7240, section 4.3."""

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


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it is kept."""

    status_code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    """None where it was too large to keep."""
    trace: bytes = b""
    """Of the request that it answered first, see `signals.current_trace`."""


def idempotency_key(request: HttpRequest, *, form: bool = False) -> str | None:
    """Give the request's key without quotes and escapes; None where it has none.

    The draft's quoted string (section 2.1) and the bare value name the same key.

    Args:
        form: Look into the field of a posted form, too. Both forms name a key there whatever
            the setting ``STRICT``, for a field is no header.

    Raises:
        InvalidKey: It is not exactly one key of 1 to 255 printable ASCII characters.
    """
    header = request.headers.get(KEY_HEADER)
    keys = [] if header is None else [_key(header, strict=conf.settings.STRICT)]
    if form:
        named = [_key(value) for value in forms.keys(request)]
        if len(named) > 1:
            raise InvalidKey("The form has more than one.")
        keys += named
    if len(set(keys)) > 1:
        raise InvalidKey("The header and the form have different ones.")
    return keys[0] if keys else None


def has_key(request: HttpRequest, *, form: bool = False) -> bool:
    """Tell whether a request says anything about a key, be it valid or not."""
    return KEY_HEADER in request.headers or (form and bool(forms.keys(request)))


def _key(value: str, *, strict: bool = False) -> str:
    value = value.strip(" \t")
    if quoted := _QUOTED_KEY.fullmatch(value):
        key = re.sub(r"\\(.)", r"\1", quoted[1][1:-1])
    elif strict:
        raise InvalidKey("This server accepts the quoted form only.")
    elif _BARE_KEY.fullmatch(value):
        key = value
    else:
        raise InvalidKey
    if not 1 <= len(key) <= _MAX_LENGTH:
        raise InvalidKey
    return key


def scope(
    request: HttpRequest, caller: conf.Resolver | None = None, tenant: conf.Resolver | None = None
) -> str:
    """Give whose key it is: ``user:<pk>`` or what ``caller`` says, behind the tenant if any.

    Raises:
        UnscopedCaller: Nobody can tell. A scope that anonymous callers share would hand one of
            them the answer of another.
    """
    name = _asked(caller, request) if caller else user_scope(request)
    if tenant:
        owner = _asked(tenant, request)
        name = f"tenant:{quote(owner, safe='')}/{name}" if owner and name else None
    if not name or len(name) > _MAX_LENGTH or not name.isprintable():
        raise UnscopedCaller
    return name


def _asked(resolver: conf.Resolver, request: HttpRequest) -> str | None:
    name = resolver(request)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{resolver!r} must name a caller or a tenant with text, not {name!r}.")
    return name


def user_scope(request: HttpRequest) -> str | None:
    """Give ``user:<pk>`` of the authenticated user: stable, unlike a token or a session.

    Users of another model than ``AUTH_USER_MODEL`` go by that model's name, as both may have the
    same primary key. One that has none stands for anybody who got in, so for nobody.
    """
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    pk = getattr(user, "pk", None)
    return None if pk is None else f"{_kind(user)}:{pk}"


def _kind(user: Any) -> str:
    models = [base._meta.label_lower for base in user.__class__.__mro__ if hasattr(base, "_meta")]  # noqa: SLF001  # documented by Django
    is_other = models and conf.of_project("AUTH_USER_MODEL", "").lower() not in models
    return str(models[0]) if is_other else "user"


def operation(request: HttpRequest) -> str:
    """Give method and route, which unlike the path has few values: ``POST payments/<int:pk>/``."""
    match = request.resolver_match
    route = match.route if match else "(no route)"
    return f"{request.method} {route}"[:_MAX_LENGTH]


def preferred_wait(request: HttpRequest) -> int | None:
    """Give the seconds of ``Prefer: wait=N``; None where the client has no such preference."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return int(found[1]) if found else None


def capture(request: HttpRequest, response: HttpResponseBase) -> Answer:
    """Take what is kept of a response. A streamed one is read, up to the limit, and stays whole."""
    headers = tuple(item for item in response.items() if not _NOT_KEPT.fullmatch(item[0]))
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


def replay(answer: Answer) -> HttpResponse:
    """Make a response of a stored answer: same status, headers and bytes.

    Raises:
        ResponseNotKept: The answer's body was too large to keep.
    """
    if answer.body is None:
        raise ResponseNotKept
    response = HttpResponse(answer.body, status=answer.status_code)
    del response["Content-Type"]
    for name, value in answer.headers:
        response[name] = value
    if 300 <= answer.status_code < 400 and "Location" in response:
        # As Django's redirects have it: its test client follows no other.
        response.url = response["Location"]  # type: ignore[attr-defined]
    response[REPLAYED_HEADER] = "true"
    return response


def problem(request: HttpRequest, error: IdempotencyError) -> HttpResponse:
    """Answer an error: a problem document (RFC 9457), or a page with the same facts for people."""
    type_uri = problem_type(request, error.slug)
    document = problem_document(error, type_uri, request.path)
    response = _page(request, error, document) or JsonResponse(
        document,
        content_type=PROBLEM_TYPE,
        headers={"Content-Language": "en"},  # or LocaleMiddleware names the project's language
    )
    response.status_code = error.status
    response["Link"] = f'<{type_uri}>; rel="describedby"'
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept"])
    if error.retry_after is not None:
        response["Retry-After"] = str(error.retry_after)
    return response


def problem_document(error: IdempotencyError, type_uri: str, path: str) -> dict[str, Any]:
    """Give the members of a problem document (RFC 9457, section 3.1)."""
    return {
        "type": type_uri,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": escape_uri_path(path),
    }


def problem_type(request: HttpRequest, slug: str) -> str:
    """Give a problem type's absolute URI: a paragraph of the policy page, where that is served."""
    return request.build_absolute_uri(f"{policy_address()}#{slug}")


def policy_address() -> str:
    """Give the path of the policy page, or where that is not served, the draft's address."""
    try:
        return reverse("idempotency:policy")
    except NoReverseMatch:
        return DRAFT


def _page(
    request: HttpRequest, error: IdempotencyError, document: dict[str, Any]
) -> HttpResponse | None:
    offered = [PROBLEM_TYPE, "application/json", "text/html"]
    try:
        if request.get_preferred_type(offered) != "text/html":
            return None
        context = {"error": error, "problem": document, "form": _address_of_form(request)}
        return HttpResponse(render_to_string("idempotency/problem.html", context))
    except (TemplateDoesNotExist, ValueError):
        return None  # no engine looks into apps; or the Accept header makes no sense


def _address_of_form(request: HttpRequest) -> str | None:
    """Give the page that a form was posted from, if it is one of this site."""
    page = request.headers.get("Referer")
    ours = {request.get_host()}
    is_ours = url_has_allowed_host_and_scheme(page, ours, require_https=request.is_secure())
    return page if is_ours and forms.is_form(request) else None
