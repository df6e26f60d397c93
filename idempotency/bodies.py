"""Bodies: whether all of a request's body has arrived. No database.

A client that is cut off in the middle of its upload leaves a prefix of its body, which may well be
a valid request for something else. WSGI servers pass that prefix on and Django does not compare its
length with ``Content-Length``. So it is compared here, before the key is claimed.

This module reads private attributes of Django's requests: ``_stream``, ``_body`` and ``_files``,
and the position of a ``LimitedStream``.
"""

from contextlib import suppress
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest

from . import forms
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
    # What is there all the same has been put together by a middleware.
    return "HTTP_TRANSFER_ENCODING" in request.META and not getattr(request, "_body", b"")


def _declared(request: HttpRequest) -> int:
    """Return the length that the client has announced in bytes, 0 where it has announced none."""
    with suppress(ValueError):
        return int(request.META.get("CONTENT_LENGTH") or 0)
    return 0


def _arrived(request: Any, *, to_the_end: bool) -> int | None:
    """Return the number of bytes that have arrived; None where the view may still read some.

    The stream tells, and not what is kept: a middleware may have put another body in its place,
    as one does that decompresses it.
    """
    stream = request._stream
    # Reading of the body has ended then, be it for an error that a middleware has caught.
    is_parsed = hasattr(request, "_files") and request.content_type in forms.MEDIA_TYPES
    is_over = is_parsed or hasattr(request, "_body")
    if isinstance(stream, LimitedStream):
        if to_the_end and not is_over:
            with suppress(OSError):  # a connection that is reset sends no more, either
                while stream.read(_CHUNK):
                    pass
        position: int = stream._pos  # type: ignore[attr-defined]
        return position if to_the_end or is_over else None
    if getattr(stream, "seekable", bool)():  # kept by Django, or by an ASGI server in a file
        before = stream.tell()
        size: int = stream.seek(0, 2)
        stream.seek(before)
        return size
    if not (to_the_end or is_over):
        return None
    raise RuntimeError(
        f"A middleware has replaced the request's stream by {type(stream).__name__}, so nothing "
        "tells whether the whole body has arrived, and a part of it could be processed as if it "
        "were the request. Let the middleware read request.body instead."
    )
