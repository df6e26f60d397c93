"""What is fuzzed, and what it is compared with. A target raises where something is wrong."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from io import BytesIO
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import http_sf
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError

from idempotency import http, problems
from idempotency.exceptions import IdempotencyError, InvalidKey
from idempotency.fingerprints import canonical_body, fingerprints
from idempotency.options import Options

REFUSED_BY_DJANGO = (BadRequest, MultiPartParserError, SuspiciousOperation)
"""What Django itself answers with 400."""

_MAX_DEPTH = 100
"""Of JSON that is compared as such; see the app's own."""


class Difference(Exception):
    """The app reads the bytes in another way than the reference does."""


@dataclass
class Pairing:
    """Knows which forms stand for which meanings, as far as there was room for them."""

    forms: dict[Any, bytes] = field(default_factory=dict)
    meanings: dict[bytes, Any] = field(default_factory=dict)
    room: int = 200_000

    def add(self, meaning: Any, form: bytes) -> None:
        """Pair a meaning with its form.

        Raises:
            Difference: One of the two has been seen with another.
        """
        if len(self.forms) > self.room:
            self.forms.clear()
            self.meanings.clear()
        if (other := self.forms.setdefault(meaning, form)) != form:
            raise Difference(f"One meaning, two forms: {meaning!r}: {form!r}, {other!r}")
        if (known := self.meanings.setdefault(form, meaning)) != meaning:
            raise Difference(f"One form, two meanings: {form!r}: {meaning!r}, {known!r}")


def request(body: bytes = b"", method: str = "POST", **meta: str) -> HttpRequest:
    """Give a request as a WSGI server hands it over."""
    environ = {
        "REQUEST_METHOD": method,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "PATH_INFO": "/payments/",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
    }
    return WSGIRequest(environ | meta)


def key(data: bytes) -> None:
    """Compare the key that we read with what a parser of structured fields (RFC 9651) reads."""
    try:
        ours = http.idempotency_key(
            request(HTTP_IDEMPOTENCY_KEY=data.decode("latin-1"))  # as servers decode it
        )
    except InvalidKey:
        ours = None
    if ours != (theirs := _reference_key(data.strip(b" \t"))):
        raise Difference(f"{data!r} is {ours!r}, and should be {theirs!r}.")


def _reference_key(data: bytes) -> str | None:
    found: Any = None
    if data.startswith(b'"'):
        try:
            parsed: Any = http_sf.parse(data, tltype="item")
            found = parsed[0]
        except http_sf.StructuredFieldError:
            return None
    elif all(0x20 <= byte < 0x7F for byte in data) and not {*b'",'} & {*data}:
        found = data.decode("ascii")
    return str(found) if found and len(found) <= 255 else None


_json = Pairing()


def json_body(data: bytes) -> None:
    """Compare the canonical form of JSON with what a slow reading with exact decimals means."""
    form = _form(data)
    try:
        value = _slow_value(data)
        meaning = json.dumps(value)
    except (ValueError, RecursionError):
        meaning = f"bytes {data!r}"
        value = None
    except InvalidOperation:
        return  # an exponent that the reference cannot hold
    _json.add(meaning, form)
    if value is not None and (other := _form(_written_otherwise(value))) != form:
        raise Difference(f"{data!r} written otherwise has another form: {form!r}, {other!r}")


def _form(data: bytes) -> bytes:
    return canonical_body(request(data, CONTENT_TYPE="application/json"))


def _slow_value(data: bytes) -> Any:
    """Give a tree of lists that is the same for the same JSON."""

    def number(literal: str) -> list[Any]:
        sign, digits, exponent = Decimal(literal).as_tuple()
        while digits and not digits[-1]:
            digits, exponent = digits[:-1], int(exponent) + 1
        return ["number", sign, digits, exponent] if digits else ["number", 0]

    def pairs(items: list[tuple[str, Any]]) -> list[Any]:
        if len({name for name, _ in items}) < len(items):
            raise ValueError("Which of the two counts is open.")
        return ["object", *sorted(items, key=lambda item: item[0])]

    def refuse(name: str) -> Any:
        raise ValueError(name)

    value = json.loads(
        data.decode(),
        object_pairs_hook=pairs,
        parse_float=number,
        parse_int=number,
        parse_constant=refuse,
    )
    if _depth(json.loads(data.decode(), parse_int=str)) > _MAX_DEPTH:
        raise ValueError("It is nested too deep.")
    return ["value", value]


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, inner), default=-1)


def _written_otherwise(tree: Any) -> bytes:
    """Write what `_slow_value` gave with other spaces, escapes, numbers and order of names."""

    def write(value: Any) -> str:
        if isinstance(value, list) and value[:1] == ["number"]:
            if len(value) < 3:
                return "-0.00e7"
            _, sign, digits, exponent = value
            return f"{'-' * sign}{''.join(map(str, digits))}0E{exponent - 1}"
        if isinstance(value, list) and value[:1] == ["object"] and _is_pairs(value[1:]):
            inside = " ,\n".join(f"{json.dumps(k)}\t: {write(v)}" for k, v in reversed(value[1:]))
            return "{ " + inside + "}"
        if isinstance(value, list):
            return "[ " + " ,".join(map(write, value)) + "\r]"
        return json.dumps(value)

    return f" {write(tree[1])}\n".encode()


def _is_pairs(items: list[Any]) -> bool:
    return all(isinstance(item, tuple) for item in items)


_urlencoded, _multipart, _query = Pairing(), Pairing(), Pairing()


def form_body(data: bytes) -> None:
    """Compare forms with what Django makes of them, whose view reads no more than that."""
    kind, data = data[:1], data[1:]
    if kind < b"\x40":
        asked = request(data, CONTENT_TYPE="application/x-www-form-urlencoded")
        _urlencoded.add(_slow_pairs(data), canonical_body(asked))
    elif kind < b"\x80":
        asked = request(QUERY_STRING=data.decode("latin-1"))
        pairs = sorted(_slow_pairs(data), key=lambda pair: pair[0])
        _query.add(tuple(pairs), fingerprints(asked)[0])
    elif data:  # of none Django parses nothing
        method = "POST" if kind < b"\xc0" else "PATCH"
        asked = request(data, method, CONTENT_TYPE="multipart/form-data; boundary=x")
        try:
            form = canonical_body(asked)
            meaning = _slow_form(asked) if method == "POST" else data
        except REFUSED_BY_DJANGO:
            return
        if method == "POST":
            _multipart.add(meaning, form)
        elif canonical_body(asked) != form:
            raise Difference(f"{data!r} has two forms.")


def _slow_pairs(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    pairs = (part.partition(b"=")[::2] for part in data.split(b"&") if part)
    return tuple(
        (unquote_to_bytes(a.replace(b"+", b" ")), unquote_to_bytes(b.replace(b"+", b" ")))
        for a, b in pairs
    )


def _slow_form(asked: HttpRequest) -> str:
    files: Any = asked.FILES
    uploads = [
        (name, one.name, one.content_type, sorted(one.content_type_extra.items()), one.read())
        for name, many in files.lists()
        for one in many
    ]
    return repr((list(asked.POST.lists()), uploads))


_OPTIONS = [Options(required=True), Options(form=True), Options(required=True, form=True, wait=1)]
_FIELDS: tuple[str, ...] = (
    "HTTP_IDEMPOTENCY_KEY",
    "CONTENT_TYPE",
    "QUERY_STRING",
    "PATH_INFO",
    "HTTP_PREFER",
)
_FIELDS += ("HTTP_ACCEPT", "HTTP_REFERER", "REQUEST_METHOD")


def whole_request(data: bytes) -> None:
    """Take a request as far as its claim: it is covered or not, claimed, or a documented problem.

    The fields are lines of the input, and what is left is the body.
    """
    if b"\0" in data or b"\r" in data:
        return  # no server lets them into a header
    *lines, body = (data + b"\n" * len(_FIELDS)).split(b"\n", len(_FIELDS))
    meta = {name: line.decode("latin-1") for name, line in zip(_FIELDS, lines, strict=True) if line}
    options = _OPTIONS[len(body) % len(_OPTIONS)]
    meta["PATH_INFO"] = "/" + meta.get("PATH_INFO", "")
    asked = request(body, meta.pop("REQUEST_METHOD", "POST"), **meta)
    asked.user = SimpleNamespace(is_authenticated=True, pk=1)  # type: ignore[assignment]
    operation = http.operation(asked)
    try:
        if options.cover(asked):
            claim = options.claim(asked, operation)
            _look_at(claim)
        if not 0 <= options.seconds_to_wait(asked) <= 5:
            raise Difference(f"{meta!r} would wait too long.")
    except IdempotencyError as error:
        response = problems.respond(asked, error)
        if response.status_code != 400 or b"\n" in response["Link"].encode():
            raise Difference(f"{meta!r} is answered {response!r}.") from error
    except REFUSED_BY_DJANGO:
        pass


def _look_at(claim: Any) -> None:
    printable = claim.key.isascii() and claim.key.isprintable()
    if not printable or not 1 <= len(claim.key) <= 255 or claim.scope != "user:1":
        raise Difference(f"{claim!r} cannot be.")
    if len(claim.fingerprints[0]) != 33 or claim.id.int == 0:
        raise Difference(f"{claim!r} cannot be.")


_asgi = Pairing()


def asgi_query(data: bytes) -> None:
    """Compare queries under ASGI, which Django decodes before we see them."""
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": data, "headers": []}
    try:
        asked = ASGIRequest(scope, BytesIO())
    except UnicodeDecodeError:
        return  # Django's 400
    pairs = sorted(_slow_pairs(data), key=lambda pair: pair[0])
    _asgi.add(tuple(pairs), fingerprints(asked)[0])


Target = Callable[[bytes], None]

TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    "key": (
        key,
        [
            b'"8e03978e-40d5-43dd-bc93-6894a57f9324"',
            rb'"a \"b\" \\";a;b=1;c=-1.5;d="x";e=t/u;f=:aGk=:;g=?1;h=@1;i=%"f%c3%bc"',
            b"8e03978e-40d5-43dd-bc93-6894a57f9324",
            b'"a", "b"',
            b"\t a b\xff",
        ],
    ),
    "json": (
        json_body,
        [
            b'{"amount": "12.50", "n": [1, -2.50e+3, null, true], "\\u00e4": {"b": {}}}',
            b'["\\ud800\\udc00", "\\ud800", "\xc3\xa4", 1e400, 0.0, -0, 1E-7]',
            b'{"a": 1, "a": 2}',
            b"\xef\xbb\xbf[NaN, Infinity]",
            b"[" * 101 + b"]" * 101,
        ],
    ),
    "forms": (
        form_body,
        [
            b"\x00a=1&b=%C3%A4+c&a=&=&%",
            b"\x40b=1&a=2&b=%ff",
            (
                b'\x80--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x\r\n'
                b'Content-Disposition: form-data; name="f"; filename="a.txt"\r\n'
                b"Content-Type: text/plain; charset=utf-8\r\n\r\nhi\r\n--x--\r\n"
            ),
            (
                b'\x80--x\r\nContent-Disposition: form-data; name="a"\r\n'
                b"Content-Transfer-Encoding: base64\r\n\r\naGk=\r\n--x--\r\n"
            ),
            b"\xc0--x\r\n\r\n1\r\n--x--\r\n",
        ],
    ),
    "query": (asgi_query, [b"a=1&b=%C3%A4&b=\xc3\xa4", b"b=1&a=2;c=+&&=&%"]),
    "request": (
        whole_request,
        [
            b'"k"\napplication/json\na=1\npayments/\nwait=5\ntext/html\n\nPOST\n{"a": 1}',
            (
                b"k\nmultipart/form-data; boundary=x\n\n\nwait=1, x\n\n\nPOST\n--x\r\n"
                b'Content-Disposition: form-data; name="idempotency_key"\r\n\r\nk\r\n--x--\r\n'
            ),
            (
                b"\napplication/x-www-form-urlencoded; charset=utf-8\n\n\n\ntext/html;q=x\n"
                b"http://localhost/form/\nPOST\nidempotency_key=k&a=1"
            ),
            b"a,b\ntext/plain; charset=utf-16\n\n%ff\n\n*/*\n\nPATCH\nhi",
        ],
    ),
}
"""Each target, with inputs to begin with."""
