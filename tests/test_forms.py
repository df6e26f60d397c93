"""Keys in the hidden field of a posted form: over every door, and with sessions and messages."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync
from conftest import Door, MakeDoor
from django.apps import apps
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.sessions.models import Session
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template import engines
from django.test import AsyncClient, Client, RequestFactory
from django.test.client import encode_multipart
from django.views.decorators.csrf import csrf_exempt
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis import strategies as st
from test_decorators import atomic_requests, created, problem, write

from idempotency.decorators import idempotent
from idempotency.models import IdempotencyKey
from idempotency.options import Options
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, BOB

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = 'multipart/form-data; boundary="between"'
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

KEY = "00bf4176-4b9f-4b24-8a4b-0f4e4e4e1f0d"
ORDER = {"product": "beans", "quantity": "1", "card": "tok_visa"}

encodings = pytest.mark.parametrize("encoding", [URLENCODED, MULTIPART])


def post(door: Door, fields: Any, encoding: str = URLENCODED, **headers: str) -> Any:
    """Post a form as a browser does, without a header for the key but where one is given."""
    door.key = headers.pop("Idempotency_Key", "")
    body = encode_multipart("between", fields) if encoding == MULTIPART else b""
    return door(body or urlencode(fields, doseq=True).encode(), Content_Type=encoding, **headers)


def render_tag() -> str:
    """Render the tag as a template does."""
    source = "{% load idempotency %}{% idempotency_key %}"
    return str(engines["django"].from_string(source).render())


def key_in(page: Any) -> str:
    """Give the key in a page's hidden field."""
    (key,) = re.findall(r'name="idempotency_key" value="([^"]+)"', page.content.decode())
    return str(key)


def token_in(page: Any) -> str:
    """Give the CSRF token in a page's last form."""
    tokens = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.content.decode())
    return str(tokens[-1])


# The tag


def test_the_tag_gives_a_fresh_key_each_time() -> None:
    """A random UUID, in a hidden field that no browser fills in for itself."""
    found = [
        re.fullmatch(
            '<input type="hidden" name="idempotency_key" value="(.+)" autocomplete="off">',
            render_tag(),
        )
        for _ in range(2)
    ]

    keys = {uuid.UUID(match[1]) for match in found if match}
    assert len(keys) == 2
    assert {key.version for key in keys} == {4}


# The key


@encodings
def test_a_form_posted_again_is_replayed(make_door: MakeDoor, encoding: str) -> None:
    """The field does what the header does."""
    door = make_door(created, form=True)

    first, retry = (post(door, {"idempotency_key": KEY, "a": "1"}, encoding) for _ in range(2))

    assert (first.status_code, "Idempotent-Replayed" in first.headers) == (201, False)
    assert (retry.content, retry.headers["Idempotent-Replayed"]) == (first.content, "true")
    assert IdempotencyKey.objects.get().key == KEY
    assert Payment.objects.count() == 1


@encodings
def test_the_field_means_nothing_without_the_argument(make_door: MakeDoor, encoding: str) -> None:
    """A view that has a field of this name for itself is left alone."""
    door = make_door(created)

    for _ in range(2):
        assert post(door, {"idempotency_key": KEY}, encoding).status_code == 201

    assert not IdempotencyKey.objects.exists()
    assert Payment.objects.count() == 2


@pytest.mark.parametrize(
    ("method", "content_type", "body"),
    [
        ("POST", "application/json", b'{"idempotency_key": "k"}'),
        ("POST", "text/plain", b"idempotency_key=k"),
        ("PATCH", URLENCODED, b"idempotency_key=k"),
    ],
)
def test_only_a_posted_form_has_fields(
    make_door: MakeDoor, method: str, content_type: str, body: bytes
) -> None:
    """Programs that send something else can send the header."""
    door = make_door(created, form=True)
    door.key = ""

    assert door(body, method=method, Content_Type=content_type).status_code == 201
    assert not IdempotencyKey.objects.exists()


@encodings
def test_a_form_may_send_the_header_too(make_door: MakeDoor, encoding: str) -> None:
    """As a script does with the same form; both name one key, and one request."""
    door = make_door(created, form=True)
    fields = {"idempotency_key": KEY, "a": "1"}

    both = post(door, fields, encoding, Idempotency_Key=f'"{KEY}"')
    field = post(door, fields, encoding)
    header = post(door, {"a": "1"}, encoding, Idempotency_Key=KEY)

    assert both.status_code == 201
    assert field.content == header.content == both.content
    assert Payment.objects.count() == 1


@encodings
def test_header_and_field_must_not_differ(make_door: MakeDoor, encoding: str) -> None:
    """Nobody could tell which of them is meant."""
    door = make_door(created, form=True)

    response = post(door, {"idempotency_key": KEY}, encoding, Idempotency_Key="another")

    assert (response.status_code, problem(response)) == (400, "invalid-key")
    assert not Payment.objects.exists()


@encodings
@pytest.mark.parametrize("keys", [[KEY, KEY], [KEY, "other"]])
def test_the_field_must_not_be_repeated(
    make_door: MakeDoor, encoding: str, keys: list[str]
) -> None:
    """Not even with the same key, as the header must not."""
    door = make_door(created, form=True)

    response = post(door, {"idempotency_key": keys}, encoding)

    assert (response.status_code, problem(response)) == (400, "invalid-key")
    assert not Payment.objects.exists()


@encodings
@pytest.mark.parametrize("key", ["", " ", "ü", "a\nb", "a,b", '"a', "\0", "a" * 256])
def test_an_invalid_field_is_refused(make_door: MakeDoor, encoding: str, key: str) -> None:
    """By the rules of the header; it is never taken for no key at all."""
    door = make_door(created, form=True)

    response = post(door, {"idempotency_key": key}, encoding)

    assert (response.status_code, problem(response)) == (400, "invalid-key")
    assert not Payment.objects.exists()


@pytest.mark.parametrize("strict", [False, True])
def test_the_field_may_be_quoted_or_bare(make_door: MakeDoor, settings: Any, strict: bool) -> None:
    """STRICT is about the header, whose syntax the draft defines."""
    settings.IDEMPOTENCY = {"STRICT": strict}
    door = make_door(created, form=True)

    bare, quoted = (post(door, {"idempotency_key": key}) for key in (KEY, f'"{KEY}"'))

    assert bare.status_code == 201
    assert quoted.content == bare.content
    header = post(door, {"idempotency_key": KEY}, Idempotency_Key=KEY)
    assert header.status_code == (400 if strict else 201)


def test_a_form_without_a_required_key_is_refused(make_door: MakeDoor) -> None:
    """With a page for people, and for programs the name of the field."""
    door = make_door(created, form=True, required=True)

    page, document = post(door, {"a": "1"}, Accept=BROWSER), post(door, {"a": "1"})

    assert (page.status_code, problem(document)) == (400, "missing-key")
    assert b"<h1>This form cannot be sent</h1>" in page.content
    assert "field idempotency_key" in document.json()["detail"]
    assert not Payment.objects.exists()


@encodings
def test_a_form_without_an_optional_key_runs_as_if_undecorated(
    make_any_door: MakeDoor, encoding: str
) -> None:
    """What fails is rolled back where ATOMIC_REQUESTS has it so, and only there."""
    seen = []

    def work(request: Any) -> HttpResponse:
        seen.append(request.POST["a"])
        assert getattr(request, "_request", request).idempotency is None
        write()
        if len(seen) > 1:
            raise RuntimeError("It is not to be undone by us.")
        return HttpResponse(status=201)

    door = make_any_door(work, form=True)

    assert post(door, {"a": "1"}, encoding).status_code == 201
    assert post(door, {"a": "2"}, encoding).status_code == 500
    assert seen == ["1", "2"]
    assert Payment.objects.count() == (1 if atomic_requests() else 2)
    assert not IdempotencyKey.objects.exists()


@encodings
def test_a_refusal_without_an_optional_key_is_answered_as_ever(
    make_door: MakeDoor, encoding: str
) -> None:
    """The exception handler answers for a form without a key, too."""

    def work(_request: HttpRequest) -> HttpResponse:
        raise KeyError

    door = make_door(work, form=True, exception_handler=lambda *_: HttpResponse(status=402))

    assert post(door, {"a": "1"}, encoding).status_code == 402


# The fingerprint


@encodings
def test_key_and_csrf_token_do_not_count(make_door: MakeDoor, encoding: str) -> None:
    """The token is masked anew with every rendering, and is not what the sender means."""
    door = make_door(created, form=True)

    first, retry = (
        post(door, {"idempotency_key": KEY, "csrfmiddlewaretoken": token, "a": "1"}, encoding)
        for token in ("masked", "otherwise")
    )

    assert retry.content == first.content
    assert Payment.objects.count() == 1


@encodings
@pytest.mark.parametrize("name", ["a", "b", "csrfmiddlewaretoken2", "Idempotency_key"])
def test_all_other_fields_count(make_door: MakeDoor, encoding: str, name: str) -> None:
    """The key stands for one content of the form."""
    door = make_door(created, form=True)
    fields = {"idempotency_key": KEY, "a": "1"}

    assert post(door, fields, encoding).status_code == 201
    assert problem(post(door, {**fields, name: "2"}, encoding)) == "key-reused"


def test_the_token_counts_where_the_view_has_no_form(make_door: MakeDoor) -> None:
    """Without the argument nothing is known of fields."""
    door = make_door(created)

    answers = [post(door, {"csrfmiddlewaretoken": t}, Idempotency_Key=KEY) for t in "ab"]

    assert [answer.status_code for answer in answers] == [201, 422]


@pytest.mark.parametrize("name", ["idempotency_key", "csrfmiddlewaretoken"])
def test_only_fields_are_left_out(make_door: MakeDoor, name: str) -> None:
    """A file, or a part of the query, counts whatever its name."""
    door = make_door(created, form=True)

    for files in ("1", "2"):
        upload = {name: SimpleUploadedFile("a.txt", files.encode())}
        status = post(door, upload, MULTIPART, Idempotency_Key="file").status_code
        assert status == (201 if files == "1" else 422)

    for query in ("1", "2"):
        door.path = f"/work/?{name}={query}"
        status = post(door, {"idempotency_key": KEY}).status_code
        assert status == (201 if query == "1" else 422)


@encodings
def test_the_view_can_read_the_form(make_door: MakeDoor, encoding: str) -> None:
    """Fields, and files from their beginning."""

    def work(request: Any) -> HttpResponse:
        files = [upload.read().decode() for upload in request.FILES.values()]
        return HttpResponse(" ".join([request.POST["a"], *files]))

    door = make_door(work, form=True)
    fields: dict[str, Any] = {"idempotency_key": KEY, "a": "text"}
    if encoding == MULTIPART:
        fields["upload"] = SimpleUploadedFile("a.txt", b"file")

    answer = post(door, fields, encoding)

    assert answer.content == (b"text file" if encoding == MULTIPART else b"text")


# Hostile and broken forms


TEXT = encode_multipart("between", {"a": "a" * 100})
FIVE = encode_multipart("between", dict.fromkeys("abcde", "1"))


@pytest.mark.parametrize(
    ("encoding", "body", "limit"),
    [
        (URLENCODED, b"a=" + b"a" * 100, {"DATA_UPLOAD_MAX_MEMORY_SIZE": 99}),
        (URLENCODED, b"&".join([b"a=1"] * 5), {"DATA_UPLOAD_MAX_NUMBER_FIELDS": 4}),
        (MULTIPART, TEXT, {"DATA_UPLOAD_MAX_MEMORY_SIZE": 9}),
        (MULTIPART, FIVE, {"DATA_UPLOAD_MAX_NUMBER_FIELDS": 4}),
        ("multipart/form-data", TEXT, {}),
        (MULTIPART.replace("between", "ü"), TEXT, {}),
        (MULTIPART + "; charset=rot13", TEXT, {}),
    ],
)
def test_a_form_that_django_refuses_is_refused(
    make_door: MakeDoor, settings: Any, encoding: str, body: bytes, limit: dict[str, int]
) -> None:
    """With 400, as it would be without us, before there is a claim."""
    for name, value in limit.items():
        setattr(settings, name, value)

    def work(request: HttpRequest) -> HttpResponse:
        write()
        return HttpResponse(request.POST.get("a", ""))

    door = make_door(work, form=True)
    door.key = ""

    response = door(body, Content_Type=encoding)

    assert response.status_code == 400
    assert not IdempotencyKey.objects.exists()


START = {
    URLENCODED: b"idempotency_key=",
    MULTIPART: encode_multipart("between", {"idempotency_key": ""}).rpartition(b"\r\n--")[0],
}


@given(st.binary(max_size=60), st.sampled_from([URLENCODED, MULTIPART]), st.booleans())
@configured(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
def test_any_bytes_are_a_form_or_refused(
    make_function_door: MakeDoor, body: bytes, encoding: str, has_field: bool
) -> None:
    """And never a 500."""
    door = make_function_door(created, form=True)
    door.key = ""
    body = START[encoding] * has_field + body

    assert door(body, Content_Type=encoding).status_code in {201, 400, 422}


# Waiting


@pytest.mark.parametrize(
    ("options", "encoding", "prefer", "seconds"),
    [
        ({"form": True}, URLENCODED, "", 5),
        ({"form": True}, MULTIPART, "", 5),
        ({"form": True}, "application/json", "", 0),
        ({"form": True, "wait": 0}, URLENCODED, "", 0),
        ({"form": True, "wait": 2}, URLENCODED, "", 2),
        ({"form": True}, URLENCODED, "wait=1", 1),
        ({}, URLENCODED, "", 0),
        ({"wait": 2}, URLENCODED, "", 2),
    ],
)
def test_a_form_waits_for_the_first_post(
    options: dict[str, Any], encoding: str, prefer: str, seconds: float
) -> None:
    """Who clicks twice sees the second answer only, so that has to be the first one's."""
    request = RequestFactory().post("/", b"a=1", encoding, headers={"Prefer": prefer})

    assert Options(**options).seconds_to_wait(request) == seconds


def test_max_wait_holds_for_forms(settings: Any) -> None:
    """Whoever allows no waiting gets none."""
    settings.IDEMPOTENCY = {"MAX_WAIT": 0}
    request = RequestFactory().post("/", b"a=1", URLENCODED)

    assert Options(form=True).seconds_to_wait(request) == 0


# The page for people


@pytest.mark.parametrize(
    ("page", "is_linked"),
    [
        ("http://testserver/shop/?a=1&b=2", True),
        ("http://elsewhere.example/shop/", False),
        ("javascript:alert(1)", False),
        ("", False),
    ],
)
def test_people_find_back_to_the_form(make_door: MakeDoor, page: str, is_linked: bool) -> None:
    """By a link to the page they come from, if that is one of ours."""
    door = make_door(created, form=True)
    post(door, {"idempotency_key": KEY, "a": "1"})

    referer = {"Referer": page} if page else {}
    changed = post(door, {"idempotency_key": KEY, "a": "2"}, Accept=BROWSER, **referer)

    assert changed.status_code == 422
    assert b"<h1>This form was sent before, with other content</h1>" in changed.content
    link = f'href="{page.replace("&", "&amp;")}"'
    assert (link in changed.content.decode()) == is_linked
    assert ("Open the form anew" in changed.content.decode()) == is_linked


# CSRF


def fill_in(page: Any, **fields: str) -> dict[str, str]:
    """Fill in the checkout as it is on a page."""
    hidden = {"idempotency_key": key_in(page), "csrfmiddlewaretoken": token_in(page)}
    return {**ORDER, **hidden, **fields}


def test_a_corrected_form_works(customer: Client) -> None:
    """The page that shows the errors has a fresh key."""
    page = customer.get("/checkout/")
    invalid = customer.post("/checkout/", fill_in(page, quantity="99"))
    assert (invalid.status_code, key_in(invalid) == key_in(page)) == (422, False)
    assert not Payment.objects.exists()

    paid = customer.post("/checkout/", fill_in(invalid))

    assert (paid.status_code, paid.headers["Location"]) == (302, f"/checkout/{payment().pk}/")


@pytest.mark.parametrize("mistake", [{"quantity": "99"}, {"card": "tok_declined"}])
def test_a_replayed_page_can_be_sent(customer: Client, mistake: dict[str, str]) -> None:
    """It has the first rendering's key, and its CSRF token is still good."""
    page = customer.get("/checkout/")
    first, replayed = (customer.post("/checkout/", fill_in(page, **mistake)) for _ in range(2))
    assert replayed.content == first.content
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert "csrftoken" not in replayed.cookies

    assert customer.post("/checkout/", fill_in(replayed)).status_code == 302
    assert Payment.objects.count() == 1


def test_a_replay_passes_the_csrf_check_again(customer: Client) -> None:
    """A key is no credential."""
    fields = fill_in(customer.get("/checkout/"))
    assert customer.post("/checkout/", fields).status_code == 302

    stale = customer.post("/checkout/", {**fields, "csrfmiddlewaretoken": ""})

    assert stale.status_code == 403
    assert b"<h1>This page is out of date</h1>" in stale.content


def test_a_declined_card_leaves_nothing(customer: Client) -> None:
    """The page says so, and another card can be tried."""
    page = customer.get("/checkout/")

    declined = customer.post("/checkout/", fill_in(page, card="tok_declined"))

    assert declined.status_code == 402
    assert "Your bank has declined the card." in declined.content.decode()
    assert not Payment.objects.exists()


def test_a_form_of_a_lost_session_costs_no_key(customer: Client) -> None:
    """The login is asked for before the claim; the form is filled in anew after it."""
    fields = fill_in(customer.get("/checkout/"))
    Session.objects.all().delete()

    response = customer.post("/checkout/", fields)

    assert (response.status_code, response.headers["Location"]) == (302, "/login/?next=/checkout/")
    assert not IdempotencyKey.objects.exists()


class AccountingHandler(MemoryFileUploadHandler):
    """Asks the database for every upload, as one with a quota does."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        assert Account.objects.exists()
        super().new_file(*args, **kwargs)


@pytest.mark.parametrize("fields", [{}, {"idempotency_key": KEY}])
def test_async_views_take_uploads_off_the_event_loop(
    alice: Account, serve: Any, settings: Any, fields: dict[str, str]
) -> None:
    """An upload handler may use the ORM, and a large upload holds nobody else up."""
    settings.FILE_UPLOAD_HANDLERS = [f"{__name__}.AccountingHandler"]

    @idempotent(form=True)
    async def view(request: Any) -> HttpResponse:
        return HttpResponse(request.FILES["a"].read())

    serve(view)
    form = {**fields, "a": SimpleUploadedFile("a.txt", b"content")}
    headers = {"Authorization": f"Bearer {ALICE.token}"}

    response = async_to_sync(AsyncClient().post)("/work/", form, headers=headers)

    assert (response.status_code, response.content) == (200, b"content")


# Messages and sessions


def payment() -> Payment:
    """Give the only payment."""
    return Payment.objects.get()


def shown(page: Any) -> list[str]:
    """Give the messages on a page."""
    return re.findall(r'role="status">([^<]+)<', page.content.decode())


@contextmanager
def first_response_lost(client: Client) -> Iterator[None]:
    """Let a client forget the cookies it gets: a browser takes none of a response that is lost."""
    before = dict(client.cookies)
    yield
    client.cookies.clear()
    client.cookies.update(before)


STORAGE = "django.contrib.messages.storage."
THANKS = "Thank you! Your order is on its way."


@pytest.mark.parametrize("storage", ["session.SessionStorage", "cookie.CookieStorage"])
def test_a_message_is_shown_once(customer: Client, settings: Any, storage: str) -> None:
    """A form that is posted again leads to the same page, and does not say it again."""
    settings.MESSAGE_STORAGE = STORAGE + storage
    fields = fill_in(customer.get("/checkout/"))

    first = customer.post("/checkout/", fields, follow=True)
    again = customer.post("/checkout/", fields, follow=True)

    assert first.redirect_chain == again.redirect_chain
    assert (shown(first), shown(again)) == ([THANKS], [])


@pytest.mark.parametrize(
    ("storage", "seen"),
    [("session.SessionStorage", [THANKS]), ("cookie.CookieStorage", [])],
)
def test_what_becomes_of_a_message_after_a_double_click(
    customer: Client, settings: Any, storage: str, seen: list[str]
) -> None:
    """The browser drops the first response, and a message in its cookie with it."""
    settings.MESSAGE_STORAGE = STORAGE + storage
    fields = fill_in(customer.get("/checkout/"))

    with first_response_lost(customer):
        assert customer.post("/checkout/", fields).status_code == 302
    second = customer.post("/checkout/", fields, follow=True)

    assert second.redirect_chain == [(f"/checkout/{payment().pk}/", 302)]
    assert shown(second) == seen


def refusing(view: Any) -> Any:
    """Decorate a view that refuses with a ValueError, without a form that has a CSRF token."""

    def handler(_request: HttpRequest, error: Exception) -> HttpResponse | None:
        return HttpResponse(status=402) if isinstance(error, ValueError) else None

    return csrf_exempt(idempotent(form=True, exception_handler=handler)(view))


def test_session_and_messages_are_no_part_of_the_transaction(customer: Client, serve: Any) -> None:
    """What a refused view put into them is saved by their middleware, after the rollback."""

    @refusing
    def view(request: HttpRequest) -> HttpResponse:
        request.session["tries"] = 1
        messages.error(request, "It was refused.")
        write()
        raise ValueError

    serve(view)

    assert customer.post("/work/", {"idempotency_key": KEY}).status_code == 402
    assert not Payment.objects.exists()
    assert customer.session["tries"] == 1
    assert "It was refused." in str(customer.session["_messages"])


def test_a_session_saved_in_the_view_is_part_of_the_transaction(
    customer: Client, serve: Any
) -> None:
    """Where sessions are in the same database, as they are by default."""

    @refusing
    def view(request: HttpRequest) -> HttpResponse:
        request.session["cart"] = "empty"
        request.session.save()
        if "fail" in request.POST:
            raise RuntimeError("It all goes back.")
        return HttpResponse()

    serve(view)
    customer.raise_request_exception = False

    failed = customer.post("/work/", {"idempotency_key": "failing", "fail": "1"})
    assert (failed.status_code, "cart" in customer.session) == (500, False)
    assert customer.post("/work/", {"idempotency_key": KEY}).status_code == 200
    assert customer.session["cart"] == "empty"


# Anonymous callers


def shopper() -> Client:
    """Give a client who has been here before."""
    client = Client()
    session = client.session
    session["shopper"] = str(uuid.uuid4())
    session.save()
    return client


def by_session_key(request: HttpRequest) -> str | None:
    """Scope by the session of the moment: the trap."""
    key = request.session.session_key
    return f"session:{key}" if key else None


def by_shopper(request: HttpRequest) -> str | None:
    """Scope by an id that lies in the session, and survives a login: as documented."""
    shopper = request.session.get("shopper")
    return f"shopper:{shopper}" if shopper else None


@pytest.mark.parametrize(("scope", "payments"), [(by_shopper, 1), (by_session_key, 2)])
def test_a_login_in_the_view_must_not_change_the_scope(
    alice: Account, serve: Any, scope: Any, payments: int
) -> None:
    """It gives the session another key: a form that is posted again would be a stranger's."""

    @idempotent(form=True, required=True, scope=scope)
    def sign_up(request: HttpRequest) -> HttpResponse:
        write()
        login(request, alice.user, "django.contrib.auth.backends.ModelBackend")
        return HttpResponseRedirect("/other/")

    serve(sign_up)
    client = shopper()

    for _ in range(2):
        assert client.post("/work/", {"idempotency_key": KEY}).status_code == 302

    assert Payment.objects.count() == payments


def test_who_logs_in_by_a_double_click_is_not_logged_in(alice: Account, serve: Any) -> None:
    """The new session's cookie was on the response that the browser has dropped; the old session
    is gone.
    """

    @idempotent(form=True, scope=by_shopper)
    def sign_up(request: HttpRequest) -> HttpResponse:
        login(request, alice.user, "django.contrib.auth.backends.ModelBackend")
        return HttpResponseRedirect("/other/")

    serve(sign_up)
    client = shopper()

    with first_response_lost(client):
        client.post("/work/", {"idempotency_key": KEY})
        assert "_auth_user_id" in client.session
    second = client.post("/work/", {"idempotency_key": KEY})

    assert (second.status_code, problem(second)) == (400, "unscoped-caller")


def test_an_anonymous_form_needs_a_scope(alice: Account, serve: Any) -> None:
    """Whoever has no session is nobody in particular, and told so in a page."""
    serve(idempotent(form=True, scope=by_shopper)(created))

    response = Client().post("/work/", {"idempotency_key": KEY}, headers={"Accept": BROWSER})

    assert response.status_code == 400
    assert b"<h1>We cannot tell who you are</h1>" in response.content
    assert not Payment.objects.exists()


# The shop


def test_the_api_takes_no_session_for_credentials(customer: Client) -> None:
    """Its views have no CSRF token, so a page of somebody else's could use them."""
    order = '{"amount": "1", "currency": "EUR", "card": "tok_visa"}'
    paths = ["/payments/", "/async/payments/"]
    paths += ["/api/payments/"] if apps.is_installed("rest_framework") else []
    for path in paths:
        headers = {"Idempotency-Key": KEY}
        response = customer.post(path, order, "application/json", headers=headers)
        assert response.status_code == 401, path


def test_credentials_in_the_header_go_before_the_session(customer: Client) -> None:
    """Also where they are nobody's."""
    bob = customer.get("/checkout/", headers={"Authorization": f"Bearer {BOB.token}"})
    nobody = customer.get("/checkout/", headers={"Authorization": "Bearer nobody's"})

    assert b"<span>bob</span>" in bob.content
    assert nobody.headers["Location"] == "/login/?next=/checkout/"


def test_a_receipt_is_its_customers(customer: Client) -> None:
    """Others do not find it."""
    customer.post("/checkout/", fill_in(customer.get("/checkout/")))
    path = f"/checkout/{payment().pk}/"

    assert customer.get(path).status_code == 200
    as_bob = {"Authorization": f"Bearer {BOB.token}"}
    assert Client().get(path, headers=as_bob).status_code == 404


def test_a_visit_gets_a_fresh_key(customer: Client) -> None:
    """Caches may keep the page for going back only, not for another purchase."""
    first, second = (customer.get("/checkout/") for _ in range(2))

    assert key_in(first) != key_in(second)
    assert first.headers["Cache-Control"] == "private, no-cache"
