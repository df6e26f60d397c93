"""What the standards ask of a server, line by line. docs/conformance.md is the table of contents.

Sections that name no RFC are of draft-ietf-httpapi-idempotency-key-header-07.
"""

import ast
import json
import re
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

import http_sf
import pytest
from conftest import DOORS, Door, MakeDoor, _maker, _named
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from support import (
    CHECKOUT,
    Gate,
    eventually,
    threads,
    unreachable_database,
    waiting_for_a_lock,
)
from test_decorators import created, problem, row, write

from idempotency import conf, problems
from idempotency.exceptions import IdempotencyError, KeyReused
from idempotency.models import IdempotencyKey
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, BOB

THREE = [("function", False), ("async-class", True), ("drf-viewset", False)]


@pytest.fixture(params=[pair for pair in THREE if pair[0] in DOORS], ids=_named)
def make_door(
    request: pytest.FixtureRequest,
    alice: Account,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> MakeDoor:
    """Put some work behind three kinds of door; test_decorators asks them all."""
    return _maker(request.param, serve, monkeypatch)


EXAMPLES = ['"8e03978e-40d5-43e8-bc93-6894a57f9324"', '"clkyoesmbgybucifusbbtdsbohtyuuwz"']
PROBLEMS = IdempotencyError.__subclasses__()


class Page(HTMLParser):
    """The policy page, as somebody finds it who follows a link: without credentials."""

    def __init__(self, address: str = "/idempotency/policy/") -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.words: list[str] = []
        response = Client().get(address)
        assert response.status_code == 200
        self.feed(response.content.decode())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a fragment can point at."""
        self.ids |= {value for name, value in attrs if name == "id" and value}

    def handle_data(self, data: str) -> None:
        """Note what there is to read."""
        self.words.append(data)


def is_described(response: Any) -> bool:
    """Tell whether body and header link to a page that says what to do about a problem."""
    slug = problem(response)
    link = re.fullmatch(r'<([^<>]*)>; rel="describedby"', response.headers["Link"])
    assert link
    target, fragment = urldefrag(link[1])
    assert fragment == slug
    return fragment in Page(urlsplit(target).path).ids


# 1 Introduction


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_unsafe_methods_become_fault_tolerant(make_door: MakeDoor, method: str) -> None:
    """1: POST and PATCH are not idempotent; with a key they are."""
    door = make_door(created)

    assert door(method=method).content == door(method=method).content
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_idempotent_methods_are_left_alone(make_door: MakeDoor, method: str) -> None:
    """1: What RFC 9110 (9.2.2) calls idempotent needs no key, and a key changes nothing there."""
    door = make_door(lambda request: HttpResponse(uuid.uuid4().hex))

    assert door(method=method).content != door(method=method).content
    assert not IdempotencyKey.objects.exists()


# 2 The header field


def test_the_field_name_has_no_case(make_function_door: MakeDoor) -> None:
    """2: The field is called `Idempotency-Key`, in any case, as all fields are (RFC 9110, 5.1)."""
    door = make_function_door(created)
    key = door.headers().pop("Idempotency-Key")
    headers = {"Authorization": f"Bearer {ALICE.token}"}

    contents = {
        Client().post("/work/", "{}", "application/json", headers=headers | {name: key}).content
        for name in ("Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY")
    }

    assert len(contents) == 1


# 2.1 Syntax


@pytest.mark.parametrize("key", EXAMPLES)
def test_the_drafts_examples_are_keys(make_door: MakeDoor, key: str, settings: Any) -> None:
    """2.1, 6: The value is an Item of type String, such as the two in the draft."""
    settings.IDEMPOTENCY = {"STRICT": True}
    door = make_door(created)

    assert door(Idempotency_Key=key).content == door(Idempotency_Key=key).content
    assert IdempotencyKey.objects.get().key == key.strip('"')


@pytest.mark.parametrize(
    "value",
    [
        "key",  # Token
        "17",  # Integer
        "1.5",  # Decimal
        "?1",  # Boolean
        ":a2V5:",  # Byte Sequence
        "@1659578233",  # Date
        '%"key"',  # Display String
        '("key")',  # Inner List
        "'key'",
    ],
)
def test_other_types_are_no_keys_where_the_server_is_strict(
    make_function_door: MakeDoor, settings: Any, value: str
) -> None:
    """2.1: The value must be a String; `STRICT` holds clients to that."""
    settings.IDEMPOTENCY = {"STRICT": True}
    door = make_function_door(created)

    assert problem(door(Idempotency_Key=value)) == "invalid-key"
    assert Payment.objects.count() == 0


def test_the_bare_value_is_the_same_key(make_function_door: MakeDoor) -> None:
    """2.1, we go further: most clients in the field send no quotes, and mean the same key."""
    door = make_function_door(created)

    assert door(Idempotency_Key="k").content == door(Idempotency_Key='"k"').content


def test_parameters_are_ignored(make_function_door: MakeDoor) -> None:
    """RFC 9651, 3.3: an Item may have parameters; those that nobody has defined mean nothing."""
    door = make_function_door(created)
    values = ['"k"', '"k";a', '"k";a=1;b=?0;c=tok; d="x,y"', '"k"; e=:YQ==:;f=@1;g=1.5;h=%"%c3%bc"']

    assert len({door(Idempotency_Key=value).content for value in values}) == 1
    parsed: Any = http_sf.parse(values[2].encode(), tltype="item")
    assert parsed[0] == "k"


def test_escapes_are_undone(make_function_door: MakeDoor) -> None:
    r"""RFC 9651, 4.2.5: `\"` and `\\` stand for a quote and a backslash, and no other escape is."""
    door = make_function_door(created)

    assert door(Idempotency_Key=r'"a\"b\\c"').status_code == 201
    assert IdempotencyKey.objects.get().key == 'a"b\\c'
    assert problem(door(Idempotency_Key=r'"a\nb"')) == "invalid-key"


@pytest.mark.parametrize("value", ['"ü"', '"a\x7fb"', '"a\tb"', '"a\x00b"', '"a', 'a"', '"a"b'])
def test_what_is_no_string_is_refused(make_function_door: MakeDoor, value: str) -> None:
    """RFC 9651, 4.2.5: a String is printable ASCII between two quotes, or parsing fails."""
    door = make_function_door(created)

    assert problem(door(Idempotency_Key=value)) == "invalid-key"
    assert Payment.objects.count() == 0


@pytest.mark.parametrize("value", ['"a", "b"', '"a", "a"', '"a","b"', "a, b", '"a", b'])
def test_two_keys_are_refused(make_function_door: MakeDoor, value: str) -> None:
    """2.1: A request has one field of this name; servers join two to a list, which is no Item."""
    door = make_function_door(created)

    assert problem(door(Idempotency_Key=value)) == "invalid-key"
    assert Payment.objects.count() == 0


def test_space_around_the_value_means_nothing(make_function_door: MakeDoor) -> None:
    """RFC 9651, 4.2: leading and trailing spaces are dropped, those between the quotes are not."""
    door = make_function_door(created)

    assert door(Idempotency_Key=' "k" ').content == door(Idempotency_Key='"k"').content
    assert door(Idempotency_Key='" k"').content != door(Idempotency_Key='"k"').content


def test_an_empty_string_is_no_key(make_function_door: MakeDoor) -> None:
    """2.2, we are stricter: `""` is a String, but nothing that could be unique."""
    door = make_function_door(created)

    assert problem(door(Idempotency_Key='""')) == "invalid-key"


def test_a_long_string_is_parsed_but_no_key(make_function_door: MakeDoor) -> None:
    """RFC 9651, 3.3.3: parsers take 1024 characters; the published format of keys ends at 255."""
    door = make_function_door(created)

    assert door(Idempotency_Key=f'"{"x" * 255}";a="{"y" * 1024}"').status_code == 201
    refused = door(Idempotency_Key=f'"{"x" * 1024}"')
    assert problem(refused) == "invalid-key"
    assert "1 to 255" in refused.json()["detail"]
    assert "1 to 255 printable ASCII characters" in Page().text


# 2.2 Uniqueness


def test_a_key_stands_for_one_payload(make_door: MakeDoor) -> None:
    """2.2, 2.7: A key must not come again with another payload: 422."""
    door = make_door(created)
    door({"amount": 1})

    response = door({"amount": 2})

    assert (response.status_code, problem(response)) == (422, "key-reused")
    assert Payment.objects.count() == 1


def test_the_page_says_what_unique_means(client: Any) -> None:
    """2.2: The owner of the resource defines uniqueness, and recommends a UUID."""
    text = Page().text

    assert "A key belongs to its caller, and to the method, address and body" in text
    assert "random UUID" in text


# 2.3 Validity and expiry


def test_a_key_expires(make_door: MakeDoor) -> None:
    """2.3: The server may let keys expire; from then on they count as never seen."""
    door = make_door(created)
    first = door()
    assert row(door).expires_at - row(door).created_at == conf.settings.TTL
    IdempotencyKey.objects.update(created_at="2026-01-01T00:00Z", expires_at="2026-01-02T00:00Z")

    assert door().content != first.content
    assert Payment.objects.count() == 2


@pytest.mark.parametrize(
    ("lifetime", "words"),
    [
        (timedelta(hours=24), "24 hours"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(minutes=90), "90 minutes"),
        (timedelta(seconds=1.5), "1.5 seconds"),
    ],
)
def test_expiry_is_published(client: Any, settings: Any, lifetime: timedelta, words: str) -> None:
    """2.3, 2.5: The expiry policy is defined and published, exactly, as it is at the moment."""
    settings.IDEMPOTENCY = {"TTL": lifetime}

    sentence = f"A key expires {words} after it was first sent, unless its operation"
    assert sentence in Page().text
    settings.TEMPLATES = []
    assert sentence in Page().text


def test_the_expiry_of_one_key_is_published(make_door: MakeDoor) -> None:
    """2.3, we go further: the status resource tells each caller when a key of theirs expires."""
    door = make_door(created, ttl=timedelta(minutes=5))
    door()

    status = Client().get(f"/idempotency/keys/{door.key}/", headers=door.headers()).json()

    expires, first_seen = map(datetime.fromisoformat, (status["expires"], status["first_seen"]))
    assert expires - first_seen == timedelta(minutes=5)


# 2.4 Fingerprint


def test_the_whole_payload_is_the_fingerprint(make_door: MakeDoor) -> None:
    """2.4: By default every element of the payload counts, however it is written down."""
    door = make_door(created)

    assert door(b'{"a": 1.50, "b": 2}').content == door(b'{"b":2,"a":15e-1}').content
    for other in (b'{"a": 1.51, "b": 2}', b'{"a": 1.50}', b'{"a": 1.50, "b": null}'):
        assert problem(door(other)) == "key-reused"


def test_selected_elements_are_the_fingerprint(make_door: MakeDoor) -> None:
    """2.4: A view may select the elements that count."""
    door = make_door(created, fingerprint=lambda request: str(json.loads(request.body)["id"]))

    assert door({"id": 1, "at": "10:00"}).content == door({"id": 1, "at": "10:01"}).content
    assert problem(door({"id": 2, "at": "10:00"})) == "key-reused"


def test_the_operation_is_part_of_the_fingerprint(make_door: MakeDoor) -> None:
    """2.4, we go further: method, path, query and media type count, so reuse elsewhere is loud."""
    door = make_door(created)
    door({"a": 1})

    assert problem(door({"a": 1}, method="PATCH")) == "key-reused"
    assert problem(door(b'{"a": 1}', Content_Type="text/plain")) == "key-reused"
    for path in ("/other/", "/work/?b=2"):
        door.path = path
        assert problem(door({"a": 1})) == "key-reused"


# 2.5 Responsibilities


def test_the_specification_is_published(client: Any) -> None:
    """2.5: The server must publish what it does: field, format, methods, expiry, every error."""
    page = Page()

    for words in (
        "Idempotency-Key:",
        "POST or PATCH",
        "1 to 255 printable ASCII characters",
        "expires 24 hours after",
        "Idempotent-Replayed: true",
    ):
        assert words in page.text
    for kind in PROBLEMS:
        assert kind.slug in page.ids
        assert kind.title in page.text
        assert kind().detail in page.text


def test_a_server_that_does_not_honour_keys_ignores_them(alice: Account, serve: Any) -> None:
    """2.5: A client may send a key anywhere; where nobody looks at it, nothing happens to it."""
    serve(created)

    door = Door(created)

    assert [door().status_code, door().status_code] == [201, 201]
    assert Payment.objects.count() == 2


def test_every_request_with_a_key_is_identified_by_it(make_door: MakeDoor) -> None:
    """2.5: The server takes the key from the field, and keeps the fingerprint beside it."""
    door = make_door(created)
    door()

    assert IdempotencyKey.objects.get().key == door.key
    assert len(IdempotencyKey.objects.get().fingerprint) == 33


# 2.6 Enforcement


def test_a_first_request_is_processed_normally(make_door: MakeDoor) -> None:
    """2.6: What was not seen before is processed, and answered as without a key."""
    door = make_door(lambda request: HttpResponse(b"done", status=202))

    response = door()

    assert (response.status_code, response.content) == (202, b"done")
    assert not {"Idempotent-Replayed", "Preference-Applied"} & set(response.headers)


@pytest.mark.parametrize("status", [200, 201, 204, 303, 402, 404, 409, 410, 422])
def test_a_retry_gets_the_result_success_or_error(make_door: MakeDoor, status: int) -> None:
    """2.6: A retry of a completed request is answered with its result, an error's too."""
    door = make_door(lambda request: HttpResponse(uuid.uuid4().hex, status=status))

    first, retry = door(), door()

    assert first.status_code == retry.status_code == status
    assert first.content == retry.content
    assert retry.headers["Idempotent-Replayed"] == "true"


def test_a_request_that_did_not_complete_is_processed_again(make_door: MakeDoor) -> None:
    """2.6, on purpose: a 5xx was rolled back, so there is no result, and a retry may do better."""
    outcomes = iter([500, 201])

    def work(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(write().pk), status=next(outcomes))

    door = make_door(work)

    assert [door().status_code, door().status_code] == [500, 201]
    assert Payment.objects.count() == 1


@pytest.fixture
def running() -> Any:
    """Give a view that waits until it is told, and a way to send to it meanwhile."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        return created(request)

    def meanwhile(door: Door, send: Any) -> tuple[Any, Any]:
        with threads() as start:
            first = start(door)
            assert gate.reached()
            try:
                response = send()
                assert not first.done()
            finally:
                gate.open()
        return first.result(), response

    return work, meanwhile


def test_a_concurrent_request_is_a_conflict(make_door: MakeDoor, running: Any) -> None:
    """2.6, 2.7: A retry before the first request has completed must get a conflict: 409."""
    work, meanwhile = running
    door = make_door(work)

    first, response = meanwhile(door, door)

    assert first.status_code == 201
    assert (response.status_code, problem(response)) == (409, "request-in-progress")
    assert Payment.objects.count() == 1


def test_another_payload_is_told_from_a_concurrent_request(
    make_door: MakeDoor, running: Any
) -> None:
    """2.6, 2.7: While the first request runs, another payload is 422: waiting would not help."""
    work, meanwhile = running
    door = make_door(work)

    _, response = meanwhile(door, lambda: door({"other": True}))

    assert (response.status_code, problem(response)) == (422, "key-reused")


# 2.7 Error scenarios


def test_a_missing_key_is_400_with_a_link(make_door: MakeDoor) -> None:
    """2.7: Where an operation requires the key: 400, with a link to the documentation."""
    door = make_door(created, required=True)
    door.key = ""

    response = door()

    assert (response.status_code, problem(response)) == (400, "missing-key")
    assert response.json()["title"] == "Idempotency-Key is missing"
    assert is_described(response)


def test_a_reused_key_is_422_with_a_link(make_door: MakeDoor) -> None:
    """2.7: Another payload under the same key: 422, with a link to the documentation."""
    door = make_door(created)
    door({"a": 1})

    response = door({"a": 2})

    assert response.status_code == 422
    assert response.json()["title"] == "Idempotency-Key is already used"
    assert is_described(response)


def test_a_concurrent_request_is_409_with_a_link(
    make_function_door: MakeDoor, running: Any
) -> None:
    """2.7: A retry while the first request is processed: 409, with a description of the problem."""
    work, meanwhile = running
    door = make_function_door(work)

    _, response = meanwhile(door, door)

    assert response.status_code == 409
    assert response.json()["title"] == "A request is outstanding for this Idempotency-Key"
    assert is_described(response)


def test_a_request_that_is_not_corrected_fails_again(make_door: MakeDoor) -> None:
    """2.7: Unless the client corrects it, the request must fail with the same error again."""
    door = make_door(created, required=True)
    door({"a": 1})

    assert [problem(door({"a": 2})) for _ in range(2)] == ["key-reused"] * 2
    door.key = ""
    assert [problem(door()) for _ in range(2)] == ["missing-key"] * 2
    assert Payment.objects.count() == 1


def test_after_a_409_the_same_request_is_answered(
    make_function_door: MakeDoor, running: Any
) -> None:
    """2.7: A 409 asks for no correction: the same request gets the answer later."""
    work, meanwhile = running
    door = make_function_door(work)

    first, response = meanwhile(door, door)

    assert response.status_code == 409
    assert door().content == first.content


def test_other_errors_are_documented(client: Any) -> None:
    """2.7: Clients act on other errors by the documentation, which has a paragraph for each."""
    page = Page()

    assert {kind.status for kind in PROBLEMS} == {400, 404, 409, 411, 422, 429, 503}
    assert {kind.slug for kind in PROBLEMS} <= page.ids
    assert (
        "failed for a reason of the moment is not remembered: a retry of it runs again" in page.text
    )


# 5 Security considerations


def test_a_key_is_validated_before_anything_else(make_function_door: MakeDoor) -> None:
    """5: A key is held to its published format before the request is processed or looked up."""
    door = make_function_door(created)

    with CaptureQueriesContext(connection) as queries:
        assert problem(door(Idempotency_Key="a\x00b")) == "invalid-key"

    assert not [query for query in queries if "idempotency_key" in query["sql"]]


@pytest.mark.parametrize(
    "key",
    [
        "'; DROP TABLE idempotency_key; --",
        r"%s %(id)s \\x00 $1",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "${jndi:ldap://x}",
    ],
)
def test_a_key_injects_nothing(make_function_door: MakeDoor, key: str) -> None:
    """5: Whatever a key says, it is a value: kept as it is, and found as it is."""
    door = make_function_door(created)
    quoted = '"' + key.replace("\\", r"\\").replace('"', r"\"") + '"'

    first, retry = door(Idempotency_Key=quoted), door(Idempotency_Key=quoted)

    assert first.status_code == 201
    assert first.content == retry.content
    assert IdempotencyKey.objects.get().key == key


def test_a_guessed_key_finds_nothing_of_others(make_door: MakeDoor) -> None:
    """5: The look-up key is composite, with a part that only the server knows: the caller."""
    door = make_door(created)
    alices = door(Idempotency_Key="1")
    door.token = BOB.token

    bobs = door(Idempotency_Key="1")

    assert bobs.status_code == 201
    assert alices.json()["nonce"] not in bobs.content.decode()
    assert "Idempotent-Replayed" not in bobs.headers
    assert {key.scope for key in IdempotencyKey.objects.all()} == {
        f"user:{account.user_id}" for account in Account.objects.all()
    }


def test_an_unknown_caller_gets_no_shared_scope(make_door: MakeDoor) -> None:
    """5, we are stricter: who cannot be told from others is refused, not pooled with them."""
    door = make_door(created)
    door.token = None

    response = door()

    assert (response.status_code, problem(response)) == (400, "unscoped-caller")
    assert is_described(response)


def test_errors_tell_nothing_of_what_is_stored(make_door: MakeDoor) -> None:
    """5: A problem has nothing in it of the first request, its answer or its fingerprint."""
    door = make_door(created)
    first = door({"secret": "first-payload"})

    response = door({"secret": "second"})

    text = response.content.decode() + str(response.headers)
    for secret in ("first-payload", first.json()["nonce"], bytes(row(door).fingerprint).hex()):
        assert secret not in text


# RFC 9457, problem details


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.slug)
def test_a_problem_has_the_standard_members(kind: type[IdempotencyError]) -> None:
    """RFC 9457, 3.1: type, title, status, detail and instance, each of the right kind."""
    request = RequestFactory().post("/caf%C3%A9/")

    response = problems.respond(request, kind())

    assert response.headers["Content-Type"] == "application/problem+json"
    document = json.loads(response.content)
    assert document == {
        "type": f"http://testserver/idempotency/policy/#{kind.slug}",
        "title": kind.title,
        "status": response.status_code,
        "detail": kind().detail,
        "instance": "/caf%C3%A9/",
    }


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.slug)
def test_a_problem_type_is_absolute_and_resolves(kind: type[IdempotencyError]) -> None:
    """RFC 9457, 3.1.1: a type is an absolute URI; dereferenced, it tells people about itself."""
    uri = problems.type_uri(RequestFactory().get("/"), kind.slug)

    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc) == ("http", "testserver")
    assert parts.fragment in Page(parts.path).ids


def test_a_problem_type_without_a_page_is_the_drafts(settings: Any) -> None:
    """RFC 9457, 3.1.1: where the project serves no policy, a type still leads to documentation."""
    settings.ROOT_URLCONF = "test_conformance"

    uri = problems.type_uri(RequestFactory().get("/"), "key-reused")

    assert uri.startswith(
        "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key"
    )


urlpatterns: list[Any] = []


def test_a_problem_says_what_language_it_is_in(make_door: MakeDoor, settings: Any) -> None:
    """RFC 9457, 3.1: its texts are English, whatever language the project would rather speak."""
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    door = make_door(created, required=True)
    door.key = ""

    assert door(Accept_Language="de").headers["Content-Language"] == "en"


def test_a_title_does_not_change_with_the_occurrence() -> None:
    """RFC 9457, 3.1.3: what is particular to one occurrence stands in the detail."""
    plain, particular = KeyReused(), KeyReused("It was sent yesterday.")

    assert plain.title == particular.title
    assert particular.detail == f"{plain.detail} It was sent yesterday."


def test_a_problem_is_not_cached(make_function_door: MakeDoor) -> None:
    """RFC 9111, 3: a problem is of the moment, and differs with what the client accepts."""
    door = make_function_door(created, required=True)
    door.key = ""

    response = door()

    assert response.headers["Cache-Control"] == "no-store"
    assert "Accept" in response.headers["Vary"]


# RFC 7240, Prefer


def test_a_client_may_prefer_to_wait(make_door: MakeDoor) -> None:
    """RFC 7240, 4.3: `wait=N` lets a concurrent request wait for the answer of the first."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        return created(request)

    door = make_door(work)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        second = start(door, Prefer="respond-async, wait=5")
        eventually(lambda: waiting_for_a_lock() == 1)
        gate.open()

    assert second.result().content == first.result().content
    assert second.result().headers["Preference-Applied"] == "wait=5"


@pytest.mark.parametrize("preference", ["wait=x", "wait", "wait=-1", "respond-async", ";;=,"])
def test_what_cannot_be_honoured_is_ignored(
    make_function_door: MakeDoor, running: Any, preference: str
) -> None:
    """RFC 7240, 2: a preference that is unknown or makes no sense is as if it were not there."""
    work, meanwhile = running
    door = make_function_door(work)

    _, response = meanwhile(door, lambda: door(Prefer=preference))

    assert problem(response) == "request-in-progress"
    assert "Preference-Applied" not in response.headers


def test_how_a_preference_was_met_is_told(
    make_function_door: MakeDoor, running: Any, settings: Any
) -> None:
    """RFC 7240, 3: `Preference-Applied` tells what was applied, where the server has a limit."""
    settings.IDEMPOTENCY = {"MAX_WAIT": 0.01}
    work, meanwhile = running
    door = make_function_door(work)

    _, response = meanwhile(door, lambda: door(Prefer="wait=100"))

    assert response.headers["Preference-Applied"] == "wait=0"


# RFC 9110, Retry-After


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.slug)
def test_retry_after_stands_where_a_retry_helps(kind: type[IdempotencyError]) -> None:
    """RFC 9110, 10.2.3: whole seconds, on every 429, 503 and conflict that passes; nowhere else."""
    response = problems.respond(RequestFactory().post("/"), kind())

    passes = kind.status in {429, 503} or kind.slug == "request-in-progress"
    assert (re.fullmatch(r"[1-9][0-9]*", response.headers.get("Retry-After", "")) is not None) == (
        passes
    )


def test_a_503_says_when_to_come_back(make_function_door: MakeDoor) -> None:
    """RFC 9110, 15.6.4: a server that is unavailable for a while may say for how long."""
    door = make_function_door(created, scope=lambda request: "partner:1")
    door.token = None

    with unreachable_database():
        response = door()

    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert is_described(response)
    assert Payment.objects.count() == 0


# The table


def test_the_table_has_every_test_and_no_other() -> None:
    """docs/conformance.md names each test with the sections that its docstring names."""
    tree = ast.parse(Path(__file__).read_text())
    tests = {
        node.name: (ast.get_docstring(node) or "").partition(":")[0]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    del tests["test_the_table_has_every_test_and_no_other"]
    page = (CHECKOUT / "docs/conformance.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| `(test_\w+)` \|$", page, re.MULTILINE)

    assert {name: section for section, name in rows} == tests
    assert len(rows) == len(tests)
