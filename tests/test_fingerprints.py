"""What makes two requests the same request."""

import json
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.test import RequestFactory
from django.test.client import encode_multipart
from hypothesis import example, given
from hypothesis import strategies as st

from idempotency.fingerprints import canonical_body, fingerprints

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"


def of(
    body: bytes | str = b"", media_type: str = JSON, path: str = "/", method: str = "POST"
) -> bytes:
    """Give the fingerprint of a request."""
    return fingerprints(RequestFactory().generic(method, path, body, media_type))[0]


def same_json(first: bytes | str, second: bytes | str) -> bool:
    """Tell whether two JSON bodies are the same request."""
    return of(first) == of(second)


def test_fingerprints_are_short_versioned_and_stable() -> None:
    """33 bytes that start with the version; a change here would refuse every retry on upgrade."""
    fingerprint = of(b'{"amount": "12.50", "n": [1, 2.0, null]}')

    assert len(fingerprint) == 33
    assert fingerprint.hex() == STABLE


STABLE = "01eae01067cbcc19b9f40f0f9978ac46e012cb9fbb65f9dbd294482ca13e63d252"


def test_something_else_can_stand_for_the_body(settings: Any) -> None:
    """Under every secret, as text or bytes; and never so that it passes for another request's."""
    settings.SECRET_KEY_FALLBACKS = ["old"]

    def standing_in(form: bytes | str, path: str = "/", body: bytes = b"{}") -> tuple[bytes, ...]:
        request = RequestFactory().post(path, body, JSON)
        return fingerprints(request, lambda request: form)

    assert standing_in("ü") == standing_in("ü".encode(), body=b"other")
    assert len({*standing_in("a"), *standing_in("b"), *standing_in("a", "/other/")}) == 6
    assert standing_in("\ud800")
    request = RequestFactory().post("/", b"{}", JSON)
    assert standing_in(canonical_body(request)) == fingerprints(request)


def test_the_secret_keeps_bodies_from_being_guessed(settings: Any) -> None:
    """Without the secret nobody can try out bodies against a dump of the table."""
    before = of(b"{}")
    settings.SECRET_KEY = "another"

    assert of(b"{}") != before


def test_a_rotated_secret_still_recognises(settings: Any) -> None:
    """Keys written under the old secret match as long as it is a fallback."""
    old = of(b"{}")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "new"

    new, fallback = fingerprints(RequestFactory().post("/", b"{}", JSON))

    assert fallback == old != new


def test_every_part_counts() -> None:
    """Method, path, query, media type and body."""
    others = [{"method": "PATCH"}, {"path": "/a"}, {"path": "/?a"}, {"media_type": "a/b"}]

    assert len({of(b"{}"), of(b"[]"), of(b""), *(of(b"{}", **other) for other in others)}) == 7


def test_negotiation_and_credentials_do_not_count() -> None:
    """A retry may come with a new token, in another language, or compressed otherwise."""
    headers = {"Accept": "a/b", "Accept-Language": "de", "Authorization": "x", "Cookie": "a=b"}
    request = RequestFactory().post("/", b"{}", JSON, headers=headers)

    assert fingerprints(request)[0] == of(b"{}")


def test_the_query_is_sorted() -> None:
    """The order of parameters does not count, and their values do, blank ones too."""
    assert of(path="/?a=1&b=2") == of(path="/?b=2&a=1")
    assert len({of(path=f"/?{query}") for query in ("a=1", "a=2", "a=", "b=1", "a=1&a=1")}) == 5


def test_values_of_one_parameter_keep_their_order() -> None:
    """Django, like most, takes the last of them."""
    assert of(path="/?a=1&b=3&a=2") == of(path="/?b=3&a=1&a=2")
    assert of(path="/?a=1&a=2") != of(path="/?a=2&a=1")


def test_any_query_has_a_fingerprint() -> None:
    """Bytes that are no text differ from each other, and raise nothing."""
    queries = ["%FF", "%FE", "\u00ff", "%00", "a=%ff%fe", "=", "%"]

    assert len({of(path=f"/?x{query}") for query in queries}) == len(queries)


def test_the_charset_counts_where_it_is_not_utf_8() -> None:
    """A view may heed it, and then the same bytes mean something else; its spelling is nothing."""
    body = '{"a": "ä"}'.encode()

    assert of(body, f"{JSON}; charset=UTF8") == of(body, f'{JSON}; charset="utf-8"') == of(body)
    assert of(body, f"{JSON}; charset=latin-1") == of(body, f"{JSON}; charset=ISO-8859-1")
    types = [JSON, "text/plain", URLENCODED]
    types += [f"{name}; charset={charset}" for name in types for charset in ("ascii", "cp500", "?")]
    assert len({of(body, media_type) for media_type in types}) == 12


def test_json_in_another_charset_counts_byte_by_byte() -> None:
    """What is one text in UTF-8 may be two in Latin-1, and readers differ in which they take."""
    raw, escaped = '{"a": "ä"}'.encode(), b'{"a": "\\u00e4"}'

    assert of("{}", "text/plain; charset=x+json") != of("{ }", "text/plain; charset=x+json")
    assert same_json(raw, escaped)
    assert of(raw, f"{JSON}; charset=latin-1") != of(escaped, f"{JSON}; charset=latin-1")


def test_a_query_counts_as_it_was_sent_under_asgi_too() -> None:
    """Django decodes what is not escaped there, and the bytes are what was meant."""

    def of_asgi(query: bytes) -> bytes:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
        return fingerprints(ASGIRequest(scope | {"query_string": query}, BytesIO()))[0]

    assert of_asgi("a=ä".encode()) == of_asgi(b"a=%C3%A4") != of_asgi(b"a=%E4")


# JSON


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"a": 1, "b": {"d": 2, "c": 3}}', '{"b":{"c":3,"d":2},"a":1}'),
        ("1", "1.0"),
        ("12.50", "1.25e1"),
        ("100", "1E+2"),
        ("0.001", "1e-3"),
        ("-0", "0.0"),
        ('"\\u00e4"', '"ä"'),
        ('"\\/"', '"/"'),
        (" [ ] ", "[]"),
    ],
)
def test_the_same_json_written_otherwise(first: str, second: str) -> None:
    """Order of names, white space, escapes and the form of a number do not count."""
    assert same_json(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("9007199254740993", "9007199254740992"),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("1e400", "1e401"),
        ("1", "-1"),
        ("1", '"1"'),
        ("[1, 2]", "[2, 1]"),
        ('{"a": null}', "{}"),
        ("null", "false"),
        ("null", '"null"'),
        ("0", "false"),
        ("[]", "{}"),
        ('["a", "b"]', '{"a": "b"}'),
        ("[[], []]", "[[[]]]"),
        ('["ab"]', '["a", "b"]'),
        ("[12]", "[1, 2]"),
        ('"\\ud800"', '"\\ud801"'),
        ('"#1e0;"', "1"),
    ],
)
def test_other_json(first: str, second: str) -> None:
    """Exact numbers, types, order in arrays, and null beside absent all count."""
    assert not same_json(first, second)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b"{",
        b"NaN",
        b"[Infinity]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"1e" + b"9" * 5000,
        b"[" * 200 + b"]" * 200,
        b"[" * 100_000,
        b'"\x00"',
    ],
)
def test_what_is_no_plain_json_counts_byte_by_byte(body: bytes) -> None:
    """Invalid, ambiguous or absurd JSON is compared as it is, white space and all."""
    assert same_json(body, body)
    assert not same_json(body, body + b" ")


def test_bytes_never_pass_for_json() -> None:
    """A body that looks like the canonical form of another is not that other."""
    assert of(b"#1e0;", "text/plain") != of(b"1")
    assert not same_json(b"{", b'"{"')


def test_json_by_suffix() -> None:
    """Media types that end in +json are JSON; their case and parameters do not count."""
    assert of('{"a":1,"b":2}', "Application/Vnd.X+JSON; v=1") == of(
        '{"b":2,"a":1}', "application/vnd.x+json"
    )


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def dump(value: Any, *, sort_keys: bool) -> bytes:
    """Write JSON with exact decimals, in one of two ways."""
    separators = (",", ":") if sort_keys else (" , ", " : ")

    text = json.dumps(
        _plain(value), sort_keys=sort_keys, ensure_ascii=sort_keys, separators=separators
    )
    return text.encode(errors="surrogatepass")


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in reversed(value.items())}
    return value


@given(_json)
@example({"b": [1, {"a": None}], "a": ""})
def test_how_json_is_written_never_counts(value: Any) -> None:
    """Two serialisers with other habits give one fingerprint."""
    assert same_json(dump(value, sort_keys=True), dump(value, sort_keys=False))


@given(_json, _json)
def test_other_values_never_collide(first: Any, second: Any) -> None:
    """Two values have one fingerprint only if JSON cannot tell them apart."""
    first, second = _plain(first), _plain(second)
    alike = typed(first) == typed(second)

    assert same_json(dump(first, sort_keys=True), dump(second, sort_keys=True)) == alike


def typed(value: Any) -> Any:
    """Give a value so that Python's == tells apart what JSON does: True is not 1 there."""
    match value:
        case bool() | None | str():
            return (type(value).__name__, value)
        case int() | float():
            return ("number", Decimal(repr(value)))
        case list():
            return ("list", [typed(item) for item in value])
    return ("dict", {name: typed(item) for name, item in value.items()})


# Forms


def multipart(boundary: str, method: str = "POST", **data: Any) -> HttpRequest:
    """Give a multipart request."""
    body = encode_multipart(boundary, data)
    media_type = f"multipart/form-data; boundary={boundary}"
    return RequestFactory().generic(method, "/", body, media_type)


def upload(content: bytes = b"x", name: str = "a.txt", media_type: str = "a/b") -> Any:
    """Give a file to send."""
    return SimpleUploadedFile(name, content, media_type)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_multipart_boundary_does_not_count(method: str) -> None:
    """A retry with a new boundary is the same request; the parts are what counts."""
    first = fingerprints(multipart("aaa", method, field="1", file=upload()))

    assert fingerprints(multipart("bbb", method, field="1", file=upload())) == first


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_every_part_of_a_multipart_body_counts(method: str) -> None:
    """Names, values and their order; a file's name, type and content."""
    bodies: list[dict[str, Any]] = [
        {},
        {"a": "1"},
        {"a": "2"},
        {"b": "1"},
        {"a": ["1", "1"]},
        {"a": ["1", "2"]},
        {"a": ["2", "1"]},
        {"a": upload()},
        {"b": upload()},
        {"a": upload(b"y")},
        {"a": upload(b"")},
        {"a": upload(name="b.txt")},
        {"a": upload(media_type="c/d")},
        {"a": [upload(), upload()]},
    ]

    assert len({fingerprints(multipart("x", method, **body)) for body in bodies}) == len(bodies)


def test_files_are_rewound() -> None:
    """The view reads the whole file, large ones on disk too."""
    content = bytes(range(256)) * 20_000
    request = multipart("x", file=upload(content))

    fingerprints(request)

    files: Any = request.FILES
    assert files["file"].read() == content
    request.close()


def test_the_body_stays_readable() -> None:
    """The view may parse it, or read it as a stream."""
    request = RequestFactory().post("/", b'{"a": 1}', JSON)
    fingerprints(request)
    assert request.body == request.read() == b'{"a": 1}'

    form = RequestFactory().post("/", b"a=1&b=2", URLENCODED)
    fingerprints(form)
    assert form.POST["b"] == "2"


def chunked(boundary: str, content: bytes) -> HttpRequest:
    """Give a multipart POST without a length, as ASGI servers hand over a chunked one."""
    request = multipart(boundary, file=upload(content))
    del request.META["CONTENT_LENGTH"]
    return request


def test_a_chunked_multipart_body_counts() -> None:
    """Django parses nothing without a length, but the view can read the body."""
    first = fingerprints(chunked("aaa", b"x"))

    assert fingerprints(chunked("bbb", b"x")) == first
    assert fingerprints(chunked("aaa", b"y")) != first


def test_what_django_would_not_tell_apart_counts_where_the_view_parses() -> None:
    """All but the boundary itself, byte by byte."""
    name = b'Content-Disposition: form-data; name="a"\r\n'
    bodies = [
        b"--x\r\n" + name + b"\r\n\xff\r\n--x--",
        b"--x\r\n" + name + b"\r\n\xfe\r\n--x--",
        b"--x\r\n" + name + b"Content-Type: a/b\r\n\r\n\xff\r\n--x--",
        b"--x\r\n\r\n\xff\r\n--x--",
        b"preamble--x\r\n" + name + b"\r\n\xff\r\n--x--",
        b"--x\r\n" + name + b"\r\n\xff\r\n--x--epilogue",
    ]
    media_type = "multipart/form-data; boundary=x"

    assert len({of(body, media_type, method="PATCH") for body in bodies}) == len(bodies)


def test_a_boundary_in_mid_line_does_count() -> None:
    """It is content to some readers: to leave it out would make one request of two."""

    def of_boundary(boundary: bytes) -> bytes:
        part = b'--%b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
        media_type = f"multipart/form-data; boundary={boundary.decode()}"
        bodies = [b"x--%b y\r\n--%b--", b"\r\n--%b y\r\n--%b--"]
        return b"".join(
            of((part + body) % (boundary, boundary, boundary), media_type, method="PATCH")
            for body in bodies
        )

    first, other = of_boundary(b"p"), of_boundary(b"q")
    assert first[:33] != other[:33]
    assert first[33:] != other[33:]


def test_the_charset_of_a_file_counts() -> None:
    """And whatever else its media type has for parameters."""
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n'
    part += b"Content-Type: text/csv; %b\r\n\r\n\xc3\xa4\r\n--x--\r\n"
    parameters = [b"charset=utf-8", b"charset=latin-1", b"header=absent", b""]

    assert len({of(part % it, "multipart/form-data; boundary=x") for it in parameters}) == 4


def test_a_broken_multipart_body_of_patch_counts_byte_by_byte() -> None:
    """Django parses POST only; of other methods the view decides what is an error."""
    media_type = "multipart/form-data; boundary=x"
    broken = b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64'
    broken += b"\r\n\r\n!\r\n--x--\r\n"

    assert of(broken, media_type, method="PATCH") == of(broken, media_type, method="PATCH")
    assert of(b"a", "multipart/form-data", method="PATCH") != of(
        b"b", "multipart/form-data", method="PATCH"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"note": "a+b"}', '{"note": "a b"}'),
        ('{"note":"%41"}', '{"note":"A"}'),
        ("<a>1&&2</a>", "<a>1&2</a>"),
    ],
)
def test_what_is_called_a_form_and_is_none_counts_byte_by_byte(first: str, second: str) -> None:
    """It is what curl calls all that it is given, and the view may read it as it came."""
    assert of(first, URLENCODED) != of(second, URLENCODED)


def test_urlencoded_pairs_are_ordered() -> None:
    """How a character is escaped does not count; order, blanks and repetition do."""
    assert of("a=%62&c=d+e", URLENCODED) == of("a=b&c=d%20e", URLENCODED)
    bodies = ["a=1&b=2", "b=2&a=1", "a=1", "a=1&b=", "a=1&a=1", "a=%FF", "a=%FE"]
    assert len({of(body, URLENCODED) for body in bodies}) == len(bodies)


def test_other_bodies_count_byte_by_byte() -> None:
    """Of what we do not know we assume nothing."""
    assert of(b'{"a": 1}', "text/plain") != of(b'{"a":1}', "text/plain")


@given(st.binary(max_size=60), st.sampled_from([JSON, URLENCODED, "a/b", ""]))
def test_any_body_has_a_fingerprint(body: bytes, media_type: str) -> None:
    """No bytes raise anything, and a retry of them is recognised."""
    assert of(body, media_type) == of(body, media_type)
