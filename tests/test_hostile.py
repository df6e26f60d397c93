"""Hostile input: attempts to read somebody else's answer, and bytes that should break something.

What the contract has for an answer is all that may come of it: never 500, never another's bytes.
"""

import pickle
import re
import socket
import uuid
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from conftest import Door, MakeDoor, ServeShop, _maker, _named
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from hypothesis import HealthCheck, example, given
from hypothesis import settings as configured
from hypothesis import strategies as st
from support import DEADLINE, SERVERS
from test_decorators import created, problem

from idempotency import http
from idempotency.digests import digest
from idempotency.exceptions import UnscopedCaller
from idempotency.fingerprints import fingerprints
from idempotency.models import IdempotencyKey
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, BOB

KEY = "Alice's key: 1"
DOCUMENTED = {201, 400, 401, 409, 422}
"""All that a request may be answered here, whoever sends it."""

many = configured(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


@pytest.fixture(
    params=[
        ("function", False),
        ("async-function", False),
        ("drf-viewset", True),
        ("adrf-viewset", False),
    ],
    ids=_named,
)
def make_door(
    request: pytest.FixtureRequest,
    alice: Account,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> MakeDoor:
    """Put some work behind four kinds of door."""
    return _maker(request.param, serve, monkeypatch)


def quoted(key: str) -> str:
    """Write a key as the draft has it."""
    return '"' + key.replace("\\", r"\\").replace('"', r"\"") + '"'


# Ways to write a key

SAME = [KEY, quoted(KEY), f" {KEY}\t", f'{quoted(KEY)};a;b="Bob, his key"', f"{quoted(KEY)};v=1.5"]
OTHERS = [
    KEY.upper(),
    KEY.swapcase(),
    KEY + ".",
    KEY[:-1],
    KEY.replace(" ", "  "),
    KEY.replace(" ", "+"),
    quote(KEY),
    KEY.replace("'", "`"),
    f"'{KEY}'",
    f"user:1{KEY}",
    f"user:1/{KEY}",
    f"14:{KEY}",
    f"{KEY};a=1",
    quoted(f"{KEY};a"),
    KEY.replace("A", "\\u0041"),
    KEY.replace("A", "&#65;"),
    quoted(f"{KEY} "),
    quoted(f" {KEY}"),
    quoted(quoted(KEY)),
    "%",
    "_" * len(KEY),
    "*",
    ".*",
    "' OR ''='",
]
REFUSED = [
    KEY.replace("A", "\u0391"),  # Greek
    KEY.replace("A", "\uff21"),  # full width
    KEY.replace("A", "\U0001d400"),  # bold
    KEY.replace("A", "A\u0301"),  # composed
    KEY.replace("'", "\u2019"),
    KEY.replace(" ", "\u00a0"),
    KEY.replace("l", "l\u200d"),
    KEY.replace("i", "\u0131"),
    KEY.replace("A", "\uff21").encode().decode("latin-1"),
    f"\ufeff{KEY}",
    f"{KEY}\0",
    f"{KEY}\0.",
    f"{KEY}\x7f",
    f"{KEY}\x0b",
    f"{KEY}\ud800",
    f"{KEY}\r\n x",
    f"{KEY}\r\nIdempotency-Key: x",
    f"{KEY}, {KEY}",
    f"{KEY},",
    f"{quoted(KEY)}, {quoted(KEY)}",
    f"({quoted(KEY)})",
    f'{quoted(KEY)} "x"',
    quoted(KEY).replace("A", r"\A"),
    quoted(KEY)[:-1],
    f":{KEY}:,",
    f'%{quoted(KEY)}"',
    KEY * 100,
]


def send_in(door: Door, field: str, value: str) -> Any:
    """Send a key in the header or in the field of a form."""
    if field == "header":
        return door(Idempotency_Key=value)
    body = f"{field}={quote(value, errors='surrogatepass')}".encode()
    return door(body, Content_Type="application/x-www-form-urlencoded")


@pytest.mark.parametrize("field", ["header", "idempotency_key"])
def test_no_way_to_write_a_key_reaches_anothers_answer(make_door: MakeDoor, field: str) -> None:
    """Bob gets an answer of his own or a refusal, and a stranger a refusal, whatever they write."""
    door = make_door(created, form=field != "header")
    door.key = ""
    secret = send_in(door, field, KEY).json()["nonce"]

    for token in (BOB.token, None, ALICE.token.upper(), f"{ALICE.token}\0", f" {ALICE.token}"):
        door.token = token
        # Whoever is nobody is refused before the key is looked at, so one nobody tries them all.
        for value in [*SAME, *OTHERS, *REFUSED] if token in {BOB.token, None} else SAME:
            response = send_in(door, field, value)
            assert response.status_code in DOCUMENTED, (token, value)
            assert secret.encode() not in response.content, (token, value)
            if token != BOB.token:
                assert response.status_code in {400, 401}, (token, value)
    assert IdempotencyKey.objects.filter(scope=scope_of("alice")).count() == 1


def scope_of(name: str) -> str:
    """Give the scope of a user of the shop."""
    return f"user:{User.objects.get(username=name).pk}"


@pytest.mark.parametrize("field", ["header", "idempotency_key"])
def test_only_the_same_key_is_the_same(make_door: MakeDoor, field: str) -> None:
    """Quotes, escapes, parameters and space around it aside, every character counts."""
    door = make_door(created, form=field != "header")
    door.key = ""
    first = send_in(door, field, KEY)

    assert {send_in(door, field, value).content for value in SAME} == {first.content}
    for value in REFUSED:
        assert problem(send_in(door, field, value)) == "invalid-key", value
    nonces = {send_in(door, field, value).json()["nonce"] for value in OTHERS}
    assert len(nonces | {first.json()["nonce"]}) == len(OTHERS) + 1


@many
@given(st.text(st.sampled_from([*KEY, *'"\\;,=\0\r\n\t\xe9\u0391\ud800']), max_size=20))
@example(KEY)
def test_whatever_others_write_they_get_nothing_of_alice(
    make_function_door: MakeDoor, value: str
) -> None:
    """Not in the answer, and not in a problem."""
    door = make_function_door(created)
    secret = door(Idempotency_Key=KEY).json()["nonce"]
    door.token = BOB.token

    response = door(Idempotency_Key=value)

    assert response.status_code in {201, 400}
    assert secret not in response.content.decode() + str(response.headers)


def test_a_header_and_a_field_cannot_name_two_keys(make_door: MakeDoor) -> None:
    """Nor one of them a key, where a proxy may have looked at the other."""
    door = make_door(created, form=True)
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    bodies = [b"idempotency_key=b", b"idempotency_key=a&idempotency_key=a", b"idempotency_key="]
    bodies += [b"idempotency_key=%00", b"idempotency_key=a%2Ca", b"idempotency_key=%EF%BD%81"]

    for body in bodies:
        assert problem(door(body, Idempotency_Key="a", **form)) == "invalid-key"
    assert not IdempotencyKey.objects.exists()


# Names of callers


_NAMES = st.text(st.sampled_from("01:/%ek é"), min_size=1, max_size=6)


@given(_NAMES, _NAMES, _NAMES, _NAMES)
@example("1", "0key", "10", "key")
@example("1:", "k", "1", ":k")
def test_no_two_callers_and_keys_join_to_one_row(
    scope: str, key: str, scope2: str, key2: str
) -> None:
    """Wherever one ends and the other begins: the primary key tells them apart."""
    assert (digest(scope, key) == digest(scope2, key2)) == ((scope, key) == (scope2, key2))


def test_primary_keys_that_look_like_scopes_are_primary_keys() -> None:
    """Of each there is one scope, or none: no user passes for another, or for a tenant's."""

    def scope(pk: Any, tenant: str | None) -> str | None:
        request = RequestFactory().post("/")
        request.user = SimpleNamespace(is_authenticated=True, pk=pk)  # type: ignore[assignment]
        try:
            return http.scope(request, None, (lambda request: tenant) if tenant else None)
        except UnscopedCaller:
            return None

    pks: list[Any] = [
        1,
        "None",
        "1:2",
        "user:1",
        "1/user:2",
        "tenant:a/user:1",
        "%2F",
        " 1",
        "\uff11",
    ]
    pks += ["A\u0301", "\u00c1", "01", "1\u200b", "1\0", "1\n", "x" * 250, "x" * 251]
    tenants = [None, "a", "a/user:1", "a%2Fuser:1", "a:b", "A", "\uff41", "a "]

    scopes = [scope(pk, tenant) for pk in pks for tenant in tenants]
    named = [name for name in scopes if name is not None]
    assert len(named) == len(set(named))
    assert len(named) == len(tenants) * (len(pks) - 5) + 1
    assert scope(None, None) is None


def test_a_stranger_is_no_user_called_none(make_door: MakeDoor) -> None:
    """Nobody shares a scope with those who have no name."""
    door = make_door(created, scope=lambda request: request.headers.get("X-Caller"))
    secret = door(X_Caller="user:None").json()["nonce"]

    for caller in ("user:", "None", "", " ", "user:None "):
        response = door(X_Caller=caller) if caller else door()
        assert secret not in response.content.decode()
        assert response.status_code in {201, 400}


# Bytes on a socket


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Sync workers, and async ones."""
    return str(request.param)


@pytest.fixture
def server(kind: str, alice: Account, serve_shop: ServeShop) -> httpx.Client:
    """The shop, served for real."""
    return serve_shop(kind, SHOP_ATOMIC_REQUESTS="0")


BODY = b'{"amount": "0.01", "currency": "EUR", "card": "tok_visa"}'
PATHS = [b"/payments/", b"/async/payments/", b"/api/payments/"]


def exchange(
    server: httpx.Client, path: bytes, headers: bytes, body: bytes = BODY, patience: float = 2
) -> bytes:
    """Send a request as it stands, and give all that comes back until the server hangs up.

    Some servers wait for the rest of what they cannot make sense of; so does nobody here for long.
    """
    with socket.create_connection((server.base_url.host, server.base_url.port or 80)) as raw:
        raw.settimeout(patience)
        raw.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        raw.sendall(body)
        answer = b""
        try:
            while chunk := raw.recv(65536):
                answer += chunk
        except (ConnectionResetError, TimeoutError):
            pass  # it did not read all that was sent, or waits for more
    return answer


def as_customer(token: str, key: bytes = b"", path: bytes = b"/payments/") -> bytes:
    """Give the head of a payment."""
    scheme = b"Token" if path.startswith(b"/api") else b"Bearer"
    head = b"Connection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    return head % len(BODY) + b"Authorization: %b %b\r\n" % (scheme, token.encode()) + key


def statuses(answer: bytes) -> list[int]:
    """Give the status of each response in what came back."""
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] ([0-9]{3})", answer)]


def own(name: str) -> set[int]:
    """Give the ids of somebody's payments."""
    return {*Payment.objects.filter(account__user__username=name).values_list("pk", flat=True)}


SMUGGLED = [
    b"Idempotency_Key: %b\r\n",
    b"Idempotency-Key: bob\r\nIdempotency_Key: %b\r\n",
    b"Idempotency_Key: bob\r\nIdempotency-Key: %b\r\n",
    b"Idempotency-Key: %b\r\nIdempotency-Key: bob\r\n",
    b"idempotency-key: bob\r\nIDEMPOTENCY-KEY: %b\r\n",
    b"Idempotency-Key: bob\r\n %b\r\n",
    b"Idempotency-Key:\r\n %b\r\n",
    b"Idempotency-Key : %b\r\n",
    b"Idempotency-Key\t: %b\r\n",
    b" Idempotency-Key: %b\r\n",
    b"Idempotency-Key: %b\rX: y\r\n",
    b"Idempotency-Key: %b\nX: y\r\n",
    b"Idempotency-Key: %b\0\r\n",
    b"Idempotency-Key: \0%b\r\n",
    b"Idempotency-Key: \t%b\t\r\n",
    b'Idempotency-Key: "%b"\r\n',
    b'Idempotency-Key: "%b", "bob"\r\n',
    b'Idempotency-Key: "%b";a;b=2\r\n',
    b"Idempotency-Key: %b\xa0\r\n",
    b"Idempotency-Key: \xef\xbc\xa1%b\r\n",
    b"Idempotency-Key: " + b"a" * 8000 + b"%b\r\n",
    b"HTTP_IDEMPOTENCY_KEY: %b\r\n",
    b"Http-Idempotency-Key: %b\r\n",
    b"Idempotency-Key: %b\r\nX-HTTP-Method-Override: GET\r\n",
    b"Idempotency-Key: %b\r\nRemote-User: alice\r\nX-Forwarded-User: alice\r\n",
    b"Idempotency-Key: %b\r\nAuthorization: Bearer alice-token\r\n",
    b"Idempotency-Key: %b\r\nAuthorization_: Bearer alice-token\r\n",
    b"Idempotency-Key: %b\r\nAuthorization : Bearer alice-token\r\n",
    b"Idempotency-Key: %b\r\nCookie: idempotency_key=%b; user=alice\r\n",
    b"Idempotency-Key: %b\r\nContent-Length: 0\r\n",
    b"Idempotency-Key: %b\r\nTransfer-Encoding: chunked\r\n",
    b"Idempotency-Key: %b\r\nTransfer-Encoding: identity, xchunked\r\n",
    b"Idempotency-Key: %b\r\nExpect: 100-continue\r\n",
    b"Idempotency-Key: %b\r\nPrefer: wait=1" + b"9" * 400 + b"\r\n",
]
"""%b is the key of somebody else."""


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_nothing_smuggled_reaches_anothers_answer(path: bytes, server: httpx.Client) -> None:
    """Raw on the socket, as Bob: his own payment or a refusal, and never what Alice was told."""
    alices = as_customer(ALICE.token, b"Idempotency-Key: victim\r\n", path)
    first = exchange(server, path, alices, patience=DEADLINE)
    assert statuses(first) == [201]
    told = re.search(rb'"id": ?([0-9]+)', first)
    assert told

    for header in SMUGGLED:
        key = header.replace(b"%b", b"victim")
        answer = exchange(server, path, as_customer(BOB.token, key, path))
        assert set(statuses(answer)) <= {100, 201, 400, 401, 501}, (header, answer)
        ids = {int(number) for number in re.findall(rb'"id": ?([0-9]+)', answer)}
        assert not ids - own("bob"), header
    assert own("alice") == {int(told[1])}


# Bodies


def form_of(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    """Give a multipart body with the boundary x."""
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


NAMED = b'Content-Disposition: form-data; name="a"'
HOSTILE_FORMS = [
    b"",
    b"--x",
    b"--x--",
    b"--x\r\n",
    form_of(),
    form_of(NAMED + b"\r\n\r\n1", end=b""),
    form_of(NAMED + b"\r\n\r\n1", end=b"--x"),
    form_of(NAMED),
    form_of(b"\r\n1"),
    form_of(b"Content-Disposition: form-data\r\n\r\n1"),
    form_of(b"Content-Disposition: attachment; name=a\r\n\r\n1"),
    form_of(b'Content-Disposition: form-data; name="\0"\r\n\r\n\0'),
    form_of(NAMED + b'; filename="../../etc/passwd"\r\n\r\n1'),
    form_of(NAMED + b'; filename="\0"\r\n\r\n1'),
    form_of(NAMED + b'; filename=".."\r\n\r\n1'),
    form_of(NAMED + b'; filename=""\r\n\r\n1'),
    form_of(NAMED + b"; filename*=utf-7''+AGE-\r\n\r\n1"),
    form_of(NAMED + b"; filename*=nothing''%ff\r\n\r\n1"),
    form_of(NAMED + b"; filename*=utf-8''%ff%00\r\n\r\n1"),
    form_of(NAMED + b'; filename="a"\r\nContent-Type: text/plain; charset=rot13\r\n\r\n1'),
    form_of(NAMED + b'; filename="a"\r\nContent-Length: -1\r\n\r\n1'),
    form_of(NAMED + b'; filename="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n!'),
    form_of(NAMED + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n!"),
    form_of(NAMED + b"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n1\r\n--y--"),
    form_of(*[NAMED + b"\r\n\r\n1"] * 1200),
    form_of(*[NAMED + b'; filename="a"\r\n\r\n1'] * 120),
    form_of(NAMED + b"; " + b"a=b; " * 3000 + b"\r\n\r\n1"),
    form_of(NAMED + b"\r\n" + b"A: b\r\n" * 3000 + b"\r\n1"),
    b"--x\r\n" * 3000,
]
FORM_TYPES = [
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary="x',
    "multipart/form-data; boundary=" + "x" * 300,
    "multipart/form-data; boundary=x; charset=utf-16",
    "multipart/mixed; boundary=x",
]


@pytest.mark.slow
@pytest.mark.parametrize("media_type", FORM_TYPES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_hostile_multipart_is_a_form_or_refused(
    make_door: MakeDoor, media_type: str, method: str
) -> None:
    """No boundary, no end, no name, too many parts, files of odd names: 4xx, or the same twice."""
    door = make_door(created, form=True)

    for number, body in enumerate(HOSTILE_FORMS):
        door.key = f"form-{number}"
        first = door(body, method=method, Content_Type=media_type)
        assert first.status_code in {201, 400, 413, 415}, body[:200]
        again = door(body, method=method, Content_Type=media_type)
        assert again.status_code == first.status_code
        if first.status_code == 201:
            assert again.content == first.content


HOSTILE_JSON = [
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b"1" * 200_000,
    b"-" * 1000,
    b"1e" + b"9" * 100_000,
    b"1e-" + b"9" * 4300,
    b"0." + b"0" * 100_000 + b"1",
    b"1e400",
    b"-0",
    b"NaN",
    b"-Infinity",
    b'{"a": 1, "a": 2}',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    "{}".encode("utf-32-be"),
    b"{} {}",
    b"{}\0",
    b'"\xed\xa0\x80"',
    b'"' + b"\\u0041" * 50_000 + b'"',
    b"{" + b",".join(b'"%d":0' % number for number in range(20_000)) + b"}",
]


def test_hostile_json_is_answered_as_any_other(make_door: MakeDoor) -> None:
    """Deep, huge, ambiguous or no JSON at all: the view runs once, or the framework says 400."""
    door = make_door(created)

    for number, body in enumerate(HOSTILE_JSON):
        door.key = f"json-{number}"
        first, again = door(body), door(body)
        assert first.status_code in {201, 400}, body[:50]
        assert (again.status_code, again.content) == (first.status_code, first.content), body[:50]


_DIGITS = st.text(st.sampled_from("0123456789"), min_size=1, max_size=25)
_NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    _DIGITS.map(lambda digits: digits.lstrip("0") or "0"),
    _DIGITS.map(".{}".format) | st.just(""),
    st.builds("{}{}".format, st.sampled_from(["e", "E+", "e-", "e0", "E-00"]), st.integers(0, 4000))
    | st.just(""),
)


@given(_NUMBERS, _NUMBERS)
@example("1e400", "1e401")
@example("-0.0e-17", "0")
@example("100e-2", "0.0001E4")
@example("9007199254740993", "9007199254740992")
def test_numbers_are_alike_if_they_are_the_same_number(first: str, second: str) -> None:
    """Exactly, and by no other reading than decimal arithmetic's."""
    shifted = f"{first}0" if "." in first and "e" not in first.lower() else first
    alike = [first, shifted, f" {first} "]

    prints = {fingerprint_of_json(text) for text in alike}
    assert len(prints) == 1
    is_same = Decimal(first) == Decimal(second)
    assert (fingerprint_of_json(second) in prints) == is_same


def fingerprint_of_json(text: str) -> bytes:
    """Give the fingerprint of a request with a body of JSON."""
    return fingerprints(RequestFactory().post("/", text, "application/json"))[0]


@pytest.mark.parametrize(
    "body",
    [
        b'{"amount": 1, "currency": "\\u0000\\u0000\\u0000", "card": "tok_visa"}',
        b'{"amount": 1, "currency": "EUR", "card": ["tok_visa"]}',
        b'{"amount": 1, "currency": "EUR", "card": {}}',
        b'{"amount": "NaN", "currency": "EUR", "card": "tok_visa"}',
        b'{"amount": 1e999999999, "currency": "EUR", "card": "tok_visa"}',
    ],
)
@pytest.mark.parametrize("path", [path.decode() for path in PATHS])
def test_the_shop_refuses_orders_that_cannot_be(alice: Account, path: str, body: bytes) -> None:
    """An example that breaks would be copied."""
    scheme = "Token" if path.startswith("/api") else "Bearer"
    headers = {"Authorization": f"{scheme} {ALICE.token}", "Idempotency-Key": "1"}
    client = Client(raise_request_exception=False)

    assert client.post(path, body, "application/json", headers=headers).status_code == 400


def test_the_shop_knows_nobody_whose_name_cannot_be(alice: Account) -> None:
    """Base64 brings bytes into a header that no server lets in as they are."""
    name = b64encode(b"alice\0:alice-password").decode()
    client = Client(raise_request_exception=False)

    for credentials in (f"Basic {name}", "Bearer alice-token\0"):
        headers = {"Authorization": credentials, "Idempotency-Key": "1"}
        assert (
            client.post("/payments/", BODY, "application/json", headers=headers).status_code == 401
        )


# What a view sets


@pytest.mark.parametrize(("name", "value"), [("X-Note", "a\0b"), ("X\0Note", "a")])
def test_a_header_with_a_nul_is_refused_as_one_with_a_newline_is(
    make_door: MakeDoor, name: str, value: str
) -> None:
    """It is a mistake of the view, and cannot be stored: nothing is kept, and the error says it."""

    def work(request: HttpRequest) -> HttpResponse:
        response = created(request)
        response[name] = value
        return response

    door = make_door(work)

    assert door().status_code == door().status_code == 500
    row = IdempotencyKey.objects.get()
    assert (row.status, row.last_error) == ("in_progress", "BadHeaderError")
    assert not Payment.objects.exists()


# Rows that nobody of us has written


def tamper(column: str, value: Any) -> None:
    """Write into the only row, as somebody with a password for the database would."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE idempotency_key SET {column} = %s", [value])


HEADERS = [
    '[["X", "a\\r\\nSet-Cookie: admin=1"]]',
    '[["X: y\\r\\nSet-Cookie", "admin=1"]]',
    '[["X\\n", "a"]]',
    '[["X", "a\\n"]]',
    '[["Schl\\u00fcssel", "a"]]',
    '[["X", 1]]',
    '[["X", null]]',
    '[["X"]]',
    '[["X", "a", "b"]]',
    '[["X", ["a"]]]',
    "[1]",
    '{"X": "a"}',
    '"X: a"',
    "null",
    "true",
    "17",
    "[" * 3000 + "]" * 3000,
]


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_nobody_kept_are_not_sent(
    make_function_door: MakeDoor, headers: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The view does not run again; the client is told, and so is the log."""
    door = make_function_door(created)
    door()
    tamper("headers", headers)

    response = door()

    assert (response.status_code, problem(response)) == (409, "response-not-kept")
    assert "Set-Cookie" not in response.headers
    assert Payment.objects.count() == 1
    assert "cannot be read" in caplog.text


def test_every_door_refuses_headers_that_nobody_kept(make_door: MakeDoor) -> None:
    """And the state of the key can still be asked for."""
    door = make_door(created)
    door()
    tamper("headers", HEADERS[0])

    assert problem(door()) == "response-not-kept"
    headers = {"Authorization": f"Bearer {door.token}"}
    status = Client().get(f"/idempotency/keys/{door.key}/", headers=headers)
    assert (status.status_code, status.json()["status"]) == (200, "completed")
    assert Payment.objects.count() == 1


unpickled: list[str] = []


def explode() -> None:
    """Leave a trace."""
    unpickled.append("it was")


class Exploit:
    """Does something when it is unpickled."""

    def __reduce__(self) -> Any:
        return explode, ()


BODIES = [
    pickle.dumps(Exploit()),
    b"{{ settings.SECRET_KEY }}{% load static %}{% include '/etc/passwd' %}",
    b"<script>alert(1)</script><?php system('id'); ?><!--#exec cmd='id'-->",
    b"!!python/object/apply:os.system ['id']",
    b"__import__('os').system('id')",
    b"${7*7} #{7*7} <%= 7*7 %>",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_stored_body_is_bytes_and_nothing_else(make_function_door: MakeDoor, body: bytes) -> None:
    """Whatever it would be to somebody: nothing unpickles, renders or runs it."""
    door = make_function_door(created)
    door()
    tamper("body", body)

    response = door()

    assert (response.status_code, response.content) == (201, body)
    assert Payment.objects.count() == 1
    assert not unpickled


@pytest.fixture
def clerk(committed: None) -> Client:
    """A member of staff who may see all there is."""
    user = User.objects.create_user("keeper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="idempotency"))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(
    ("column", "value"),
    [("headers", headers) for headers in HEADERS] + [("body", body) for body in BODIES],
    ids=range(len(HEADERS) + len(BODIES)),
)
def test_the_admin_shows_tampered_rows_and_can_evict_them(
    clerk: Client, alice: Account, column: str, value: Any
) -> None:
    """It is where somebody would look; the markup in them is text there, and no template."""
    headers = {"Authorization": f"Bearer {ALICE.token}", "Idempotency-Key": uuid.uuid4().hex}
    paid = Client().post("/payments/", BODY, "application/json", headers=headers)
    assert paid.status_code == 201
    tamper(column, value)
    row = IdempotencyKey.objects.defer("headers").get()
    address = f"/admin/idempotency/idempotencykey/{row.pk}/change/"

    page = clerk.get(address)

    assert page.status_code == 200
    assert b"<script>alert" not in page.content
    assert b"the shop is an example" not in page.content  # its SECRET_KEY
    assert Payment.objects.count() == 1
    assert not unpickled
    asked = clerk.get("/admin/idempotency/idempotencykey/evict/", {"key": str(row.pk)})
    seen = re.findall(r'name="seen" value="([^"]+)"', asked.content.decode())
    assert clerk.post("/admin/idempotency/idempotencykey/evict/", {"seen": seen}).status_code == 302
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize("text", ["\0", "\ud800", "%", "'", '"', "\\", "a" * 5000, "user:\0", "\n"])
def test_the_admin_can_be_asked_for_anything(clerk: Client, text: str) -> None:
    """A search is for text, and finds nothing of what cannot be."""
    query = quote(text, errors="surrogatepass")

    assert clerk.get(f"/admin/idempotency/idempotencykey/?q={query}").status_code in {200, 302}


@pytest.mark.parametrize("key", ["%00", "%ff", "%ED%A0%80", "%0d%0aX:y", "a" * 5000, "..%2f", "%"])
def test_the_state_of_any_key_can_be_asked_for(alice: Account, key: str) -> None:
    """There is none of these, and that is all."""
    headers = {"Authorization": f"Bearer {ALICE.token}"}

    response = Client().get(f"/idempotency/keys/{key}/", headers=headers)

    assert response.status_code == 404
