"""What makes two requests the same request: a keyed hash over what the client meant.

Method, path, query, media type and body count. How the request is negotiated or authenticated
(``Accept``, language, encoding, credentials) does not, nor does how a body happens to be written
down: the order of a JSON object's names, or the boundary of a multipart body.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from operator import itemgetter
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from . import conf, forms

_VERSION = b"\x01"
"""First byte of every fingerprint. A change of the rules below must change it."""

_MAX_DEPTH = 100
"""JSON nested deeper is compared as bytes: Python's own limit would depend on who is calling."""

_NO_FORM = re.compile(rb"[^!-~]|[\"<>\\^`{|}]")
"""What no form has unescaped: it is JSON, XML or text then, sent as curl sends what it is given."""

BodyForm = Callable[[HttpRequest], bytes | str]
"""Gives the part of a fingerprint that stands for the body."""


def fingerprints(request: HttpRequest, body: BodyForm | None = None) -> tuple[bytes, ...]:
    """Give the request's fingerprint under each secret: the current one, then its fallbacks.

    Args:
        body: What stands for the body, in place of `canonical_body`.

    Raises:
        TypeError: It gave neither bytes nor text.
    """
    parts = (
        (request.method or "").encode(),
        _text(request.path),
        _joined(_flat(sorted(_pairs(_query(request)), key=itemgetter(0)))),
        _text(_media_type(request)),
    )
    form = (body or canonical_body)(request)
    if not isinstance(form, bytes | str):
        raise TypeError(
            f"{body!r} must give bytes or text to stand for the body, not {type(form).__name__}."
        )
    form = _text(form) if isinstance(form, str) else form
    # The parts are hashed once, whatever the number of secrets. The HMAC keeps somebody who sees
    # a dump of the table from guessing bodies of few possible values.
    digest = hashlib.sha256(_joined(parts) + form).digest()
    return tuple(
        _VERSION
        + salted_hmac("idempotency.fingerprints", digest, secret, algorithm="sha256").digest()
        for secret in conf.secrets()
    )


def canonical_body(request: HttpRequest, *, without: Collection[str] = ()) -> bytes:
    """Give one form of the body for all the ways to write the same down.

    Files are read in chunks and rewound, and the body stays readable for the view.

    Args:
        without: Names of form fields that do not count.
    """
    return _joined(_kind_and_form(request, without))


def _kind_and_form(request: HttpRequest, without: Collection[str]) -> tuple[bytes, bytes]:
    """Give the kind of the body and its form; the kind keeps the forms apart."""
    media_type = (request.content_type or "").lower()
    try:
        if media_type == "multipart/form-data":
            return b"multipart", _multipart(request, without)
        if media_type != _media_type(request):
            return b"bytes", request.body  # text, but readers may differ in which
        if media_type == "application/json" or media_type.endswith("+json"):
            return b"json", _canonical(_JSON.decode(request.body.decode()))
        if media_type == "application/x-www-form-urlencoded" and not _NO_FORM.search(request.body):
            pairs = _pairs(request.body.decode("latin-1"))
            return b"urlencoded", _joined(_flat(pair for pair in pairs if pair[0] not in without))
    except (KeyError, ValueError, RecursionError):
        pass  # It is not what it says: what counts then is every byte.
    return b"bytes", request.body


def _media_type(request: HttpRequest) -> str:
    """Give the media type; with the charset, if it is another than that of all JSON and forms.

    What the same bytes mean then depends on whether the view heeds it.
    """
    media_type = (request.content_type or "").lower()
    charset = (request.content_params or {}).get("charset", "utf-8")
    with suppress(LookupError, ValueError):
        charset = codecs.lookup(charset).name
    return media_type if charset == "utf-8" else f"{media_type}; charset={charset}"


def _query(request: HttpRequest) -> str:
    """Give the query with a character for each byte, as WSGI has it; ASGI has it decoded."""
    query: str = request.META.get("QUERY_STRING", "")
    return query.encode().decode("latin-1") if isinstance(request, ASGIRequest) else query


def _pairs(encoded: str) -> list[tuple[str, str]]:
    # Latin-1 loses no byte, whatever the encoding is meant to be.
    return parse_qsl(encoded, keep_blank_values=True, encoding="latin-1")


def _flat(pairs: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    return (_text(part) for pair in pairs for part in pair)


def _text(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _joined(parts: Iterable[bytes]) -> bytes:
    """Join so that no other parts give the same bytes: each goes behind its length."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _multipart(request: HttpRequest, without: Collection[str]) -> bytes:
    if request.method != "POST" or not _has_length(request):
        # Django parses nothing then, and leaves the body to the view. So we only cut it.
        boundary = (request.content_params or {})["boundary"].encode()
        return _joined(_cut(request.body, b"\r\n--" + boundary))
    parts: list[bytes] = []
    for name, values in forms.fields(request).lists():
        for value in () if name in without else values:
            parts += (b"field", _text(name), _text(str(value)))
    for name, uploads in request.FILES.lists():
        for upload in uploads:
            parts += (b"file", _text(name), *_described(upload))
    return _joined(parts)


def _cut(body: bytes, delimiter: bytes) -> list[bytes]:
    """Cut a multipart body into parts.

    Raises:
        ValueError: The delimiter is in it where readers disagree on whether it is one.
    """
    first, *parts = (b"\r\n" + body).split(delimiter)
    ends = all(part.startswith((b"\r\n", b"--")) for part in parts)
    if not ends or any(delimiter[2:] in part for part in (first, *parts)):
        raise ValueError("It has its boundary in the middle of a line.")
    return [first, *parts]


def _has_length(request: HttpRequest) -> bool:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return length.isdecimal() and int(length) > 0


def _described(upload: Any) -> tuple[bytes, ...]:
    content = hashlib.sha256()
    for chunk in upload.chunks():
        content.update(chunk)
    upload.seek(0)
    return (
        _text(upload.name or ""),
        _text(upload.content_type or ""),
        _text(repr(sorted((upload.content_type_extra or {}).items()))),  # such as the charset
        str(upload.size).encode(),
        content.digest(),
    )


class _Number(str):
    """A JSON number as exact text: never through a double, and 1.50 is 1.5 is 15e-1."""

    __slots__ = ()


def _number(literal: str) -> _Number:
    mantissa, _, exponent = literal.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    sign = "-" if whole.startswith("-") else ""
    digits = (whole + fraction).lstrip("-0")
    significant = digits.rstrip("0")
    if not significant:
        return _Number("0")
    power = int(exponent or 0) - len(fraction) + len(digits) - len(significant)
    return _Number(f"{sign}{significant}e{power}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("RFC 8259 leaves the meaning of duplicate names open.")
    return names


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON.")


_JSON = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_number, parse_constant=_refuse
)


def _canonical(value: Any, depth: int = 0) -> bytes:
    """Write a JSON value down in one way only; every value says where it ends."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"It is nested more than {_MAX_DEPTH} levels deep.")
    match value:
        case None | True | False:
            return b"%b;" % str(value).encode()
        case _Number():
            return b"#%b;" % value.encode()
        case str():
            text = _text(value)
            return b"s%d:%b" % (len(text), text)
        case list():
            return b"[%b]" % b"".join(_canonical(item, depth + 1) for item in value)
        case _:
            items = sorted(value.items())
            inside = (_canonical(part, depth + 1) for item in items for part in item)
            return b"{%b}" % b"".join(inside)
