"""The wire: keys, scopes, captured responses and problems. No database."""

import json
import string
from types import SimpleNamespace
from typing import Any

import http_sf
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.test.utils import isolate_apps
from django.urls import ResolverMatch
from django.utils.functional import SimpleLazyObject
from hypothesis import example, given
from hypothesis import strategies as st

from idempotency import answers, exceptions, http, problems
from testproject.shop.models import Account

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


def tenant_of_header(request: HttpRequest) -> str | None:
    """Resolve a tenant as a project's own resolver would, by dotted path."""
    return request.headers.get("X-Tenant")


def request_with(header: str, name: str = "HTTP_IDEMPOTENCY_KEY") -> WSGIRequest:
    """Give a request with a raw header, as a WSGI server hands it over."""
    request = RequestFactory().post("/work/")
    request.META[name] = header
    return request


# Keys


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (' \t"padded" ', "padded"),
        (r'"a \"quoted\" \\ word, with a comma"', r'a "quoted" \ word, with a comma'),
        ('"k";flag;n=1;d=-1.5;s="x, \\"y";t=a/b;b=:aGk=:;y=?1;at=@1;u=%"f%c3%bc"; sp=1', "k"),
        ("a;b", "a;b"),
        ("a b", "a b"),
        ("a\\b", "a\\b"),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        (f'"{chr(92) * 2 * 255}"', chr(92) * 255),
    ],
)
def test_keys(header: str, key: str) -> None:
    """The quoted string of RFC 9651 and the bare value are read alike; parameters are ignored."""
    assert http.idempotency_key(request_with(header)) == key


INVALID = {
    "empty": ["", " ", '""', '" "x'],
    "unbalanced": ['"', '"a', 'a"', 'a"b"', '"a"b', '"a\\b"'],
    "a list": ['"a", "b"', "a,b", ",", '"a",'],
    "bad parameters": ['"a";', '"a";A=1', '"a";b=', '"a" ;b', '"a";b=(1)'],
    "bytes that are none": ['"a";b=:a:', '"a";b=:=aa:', '"a";b=:aa===:', '"a";b=:====:'],
    "escapes that are no UTF-8": [f'"a";b=%"{it}"' for it in ("%c3", "%ff", "%ed%a0%80", "%c0%80")],
    "not printable ASCII": ['"ä"', "ä", "\0", "a\nb", "a\tb", "a\x7f", "💶", "\ud800"],
    "too long": ["x" * 256, f'"{"x" * 256}"'],
}


@pytest.mark.parametrize("header", [header for kind in INVALID.values() for header in kind])
def test_invalid_keys(header: str) -> None:
    """What is not exactly one key of 1 to 255 printable ASCII characters is refused."""
    with pytest.raises(exceptions.InvalidKey):
        http.idempotency_key(request_with(header))


def test_no_header_is_no_key() -> None:
    """An absent header is not an empty one."""
    assert http.idempotency_key(RequestFactory().post("/")) is None


def test_strict_refuses_the_bare_form(settings: Any) -> None:
    """With STRICT only the draft's form counts, and the error says so."""
    settings.IDEMPOTENCY = {"STRICT": True}

    assert http.idempotency_key(request_with('"k"')) == "k"
    with pytest.raises(exceptions.InvalidKey) as caught:
        http.idempotency_key(request_with("k"))
    assert caught.value.detail.endswith("This server accepts the quoted form only.")


@given(st.text(PRINTABLE, min_size=1, max_size=255))
def test_every_key_survives_quoting(key: str) -> None:
    """What a serialiser of structured fields writes is read back as it was."""
    assert http.idempotency_key(request_with(http_sf.ser(key))) == key


_KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]*", fullmatch=True)
_TOKENS = st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*", fullmatch=True)
_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.text(PRINTABLE),
    st.binary(),
    _TOKENS.map(http_sf.Token),
    st.text().filter(lambda text: text.isprintable()).map(http_sf.DisplayString),
)


@given(st.text(PRINTABLE, min_size=1, max_size=255), st.dictionaries(_KEYS, _VALUES))
def test_parameters_of_every_type_are_ignored(key: str, parameters: dict[str, Any]) -> None:
    """All that RFC 9651 allows behind the string is read over."""
    header = http_sf.ser((key, parameters))

    assert http.idempotency_key(request_with(header)) == key


@given(st.text(st.sampled_from('"\\ab ,;=?@%:1.-*A()')))
@example('"a";b=1.')
@example('"a";b=:a:')
def test_quoted_keys_are_what_a_parser_of_structured_fields_says(text: str) -> None:
    """On anything that starts with a quote we accept nothing the standard's parser refuses."""
    header = '"' + text
    try:
        ours = http.idempotency_key(request_with(header))
    except exceptions.InvalidKey:
        return
    parsed: Any = http_sf.parse(header.strip().encode(), tltype="item")

    assert ours == parsed[0]


@given(st.text(max_size=300) | st.text(st.characters(max_codepoint=255), max_size=300))
def test_any_header_is_a_key_or_refused(header: str) -> None:
    """No text raises anything but the refusal, and what is accepted is a usable key."""
    try:
        key = http.idempotency_key(request_with(header))
    except exceptions.InvalidKey:
        return

    assert key is not None
    assert 1 <= len(key) <= 255
    assert set(key) <= set(PRINTABLE)


# Scopes


@pytest.mark.parametrize("name", [None, "", "x" * 256, "a\0b", "a\nb", "\ud800"])
def test_a_caller_nobody_can_name_is_refused(name: str | None) -> None:
    """A scope must be printable text of 1 to 255 characters, or nobody's keys are safe in it."""
    with pytest.raises(exceptions.UnscopedCaller):
        http.scope(RequestFactory().post("/"), lambda request: name)


@pytest.mark.parametrize("tenant", [None, ""])
def test_an_unknown_tenant_is_refused(tenant: str | None) -> None:
    """Where a tenant is asked for, a scope without one would be shared by all of them."""
    with pytest.raises(exceptions.UnscopedCaller):
        http.scope(RequestFactory().post("/"), lambda request: "user:1", lambda request: tenant)


@given(*[st.text(st.sampled_from("a:/%é"), min_size=1)] * 4)
def test_joined_scopes_never_collide(tenant: str, caller: str, tenant2: str, caller2: str) -> None:
    """Two pairs of tenant and caller are one scope only if they are the same pair."""
    request = RequestFactory().post("/")

    first = http.scope(request, lambda request: caller, lambda request: tenant)
    second = http.scope(request, lambda request: caller2, lambda request: tenant2)

    assert (first == second) == ((tenant, caller) == (tenant2, caller2))


def scope_of(user: Any) -> str | None:
    """Give the scope of a caller."""
    request = RequestFactory().post("/")
    request.user = user
    return http.user_scope(request)


@isolate_apps("testproject.shop")
def test_users_of_two_models_never_share_a_scope() -> None:
    """Each model counts its primary keys from 1."""
    client: Any = Account(pk=1)
    client.is_authenticated = True

    class Clerk(User):
        class Meta:
            proxy = True
            app_label = "shop"

    assert scope_of(User(pk=1)) == "user:1"
    assert scope_of(Clerk(pk=1)) == "user:1"
    assert scope_of(SimpleLazyObject(lambda: User(pk=1))) == "user:1"
    assert scope_of(client) == "shop.account:1"


def test_a_caller_without_primary_key_has_no_scope() -> None:
    """It stands for anybody who got in, such as with a shared secret."""

    class Anybody(AnonymousUser):
        is_authenticated = True  # type: ignore[assignment]

    class Nobody:
        is_authenticated = True

    assert scope_of(Anybody()) is None
    assert scope_of(Nobody()) is None


def test_a_user_of_no_model_is_a_user() -> None:
    """As tokens have it that name the user's primary key."""
    assert scope_of(SimpleNamespace(is_authenticated=True, pk=7)) == "user:7"


def test_a_resolver_must_give_text() -> None:
    """Anything else is a mistake of the project, not of the caller."""
    with pytest.raises(TypeError, match="with text, not 17"):
        http.scope(RequestFactory().post("/"), lambda request: 17)  # type: ignore[arg-type,return-value]


# Preferences


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ('Wait = "7" ; x=y, foo', 7),
        ("wait=1, wait=2", 1),
        ("wait", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("await=1", None),
        ("foo;wait=5", None),
        ("wait=" + "9" * 5000, None),
        ("", None),
    ],
)
def test_preferred_wait(header: str, seconds: int | None) -> None:
    """`Prefer: wait=N` is read as RFC 7240 has it; what is not whole seconds is no preference."""
    assert http.preferred_wait(request_with(header, "HTTP_PREFER")) == seconds


# Answers


def test_what_is_captured_is_what_is_replayed() -> None:
    """Status, headers in their order, and body; with the mark of a replay added."""
    response = HttpResponse(b"\x00\xff", status=299, headers={"X-B": "2", "Content-Type": "a/b"})
    response["X-A"] = "1"

    replayed = answers.replay(answers.capture(RequestFactory().post("/"), response))

    assert (replayed.status_code, replayed.content) == (299, b"\x00\xff")
    assert list(replayed.items()) == [
        ("X-B", "2"),
        ("Content-Type", "a/b"),
        ("X-A", "1"),
        ("Idempotent-Replayed", "true"),
    ]


def test_an_answer_without_a_body_cannot_be_replayed() -> None:
    """It says so instead of making something up."""
    with pytest.raises(exceptions.ResponseNotKept):
        answers.replay(answers.Answer(201, (), None))


def test_an_announced_length_over_the_limit_is_not_read(settings: Any) -> None:
    """A large file stays with the server that sends it fast."""
    settings.IDEMPOTENCY = {"MAX_BODY_BYTES": 10}

    class Unreadable(HttpResponse):
        streaming = True
        is_async = False

        @property
        def streaming_content(self) -> Any:
            raise AssertionError

    unreadable = Unreadable(headers={"Content-Length": "11"})
    assert answers.capture(RequestFactory().post("/"), unreadable).body is None


def test_the_operation_has_nothing_of_the_path() -> None:
    """What a caller could make up gets neither into labels of metrics nor into logs."""
    request = RequestFactory().post("/" + "%00a%0A" * 300)

    assert http.operation(request) == "POST (no route)"


def test_the_operation_is_short() -> None:
    """Any route makes an operation that the column takes."""
    request = RequestFactory().post("/")
    request.resolver_match = ResolverMatch(HttpResponse, (), {}, route="a" * 300)

    assert http.operation(request) == "POST " + "a" * 250


# Problems


def all_errors() -> list[type[exceptions.IdempotencyError]]:
    """Give every error of the contract."""
    return exceptions.IdempotencyError.__subclasses__()


def test_the_contract_has_these_errors() -> None:
    """Status and slug are what clients and the table of the contract rely on."""
    assert {(error.slug, error.status, error.retry_after) for error in all_errors()} == {
        ("missing-key", 400, None),
        ("invalid-key", 400, None),
        ("incomplete-body", 400, None),
        ("length-required", 411, None),
        ("unscoped-caller", 400, None),
        ("unknown-key", 404, None),
        ("key-reused", 422, None),
        ("request-in-progress", 409, 1),
        ("response-not-kept", 409, None),
        ("too-many-keys", 429, 1),
        ("store-unavailable", 503, 1),
        ("outcome-unknown", 503, 1),
        ("transaction-conflict", 503, 1),
    }


@pytest.mark.parametrize("error", all_errors())
def test_details_are_sentences(error: type[exceptions.IdempotencyError]) -> None:
    """The docstring is the message: plain sentences without line breaks or double spaces."""
    detail = error().detail

    assert detail[0] in string.ascii_uppercase
    assert detail[-1] == "."
    assert "\n" not in detail
    assert "  " not in detail


def test_problem_types_are_absolute_and_resolve(client: Any) -> None:
    """Every type points at a paragraph of the policy page that the app serves."""
    page = client.get("/idempotency/policy/")
    assert page.status_code == 200

    for error in all_errors():
        uri = problems.type_uri(RequestFactory().get("/"), error.slug)
        assert uri == f"http://testserver/idempotency/policy/#{error.slug}"
        assert f'id="{error.slug}"' in page.content.decode()


def test_an_accept_header_that_makes_no_sense_gets_the_document() -> None:
    """Whatever is sent, the problem is told."""
    request = RequestFactory().post("/", headers={"Accept": "text/html;q*=foo''%41"})

    response = problems.respond(request, exceptions.MissingKey())

    assert response.headers["Content-Type"] == "application/problem+json"


def test_the_instance_is_a_uri_reference() -> None:
    """RFC 9457, section 3.1.5: so the path is escaped again."""
    request = RequestFactory().post("/caf%C3%A9%20x%3Fa%23b/")

    document = json.loads(problems.respond(request, exceptions.MissingKey()).content)

    assert document["instance"] == "/caf%C3%A9%20x%3Fa%23b/"


def test_the_policy_needs_no_templates(client: Any, settings: Any) -> None:
    """A project without a template engine serves it as plain text."""
    settings.TEMPLATES = []

    page = client.get("/idempotency/policy/")

    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert b"key-reused (422)" in page.content


def test_the_policy_page_reads_the_live_settings(client: Any, settings: Any) -> None:
    """What it tells is what holds."""
    settings.IDEMPOTENCY = {"METHODS": ["PUT"], "STRICT": True}

    page = client.get("/idempotency/policy/").content.decode()

    assert "PUT request" in page
    assert "may be left out" not in page
    assert "24 hours" in page
