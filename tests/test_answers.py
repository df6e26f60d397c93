"""What a client gets is what the view gave: the first time untouched, and every time after it."""

import io
import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any

import conftest
import framework
import pytest
from asgiref.sync import iscoroutinefunction
from conftest import DOORS, EACH, Door, Work
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import Permission
from django.core.paginator import Paginator
from django.db import connection
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponsePermanentRedirect,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import TemplateResponse
from django.test import Client
from rest_framework.generics import ListAPIView
from rest_framework.pagination import CursorPagination, LimitOffsetPagination, PageNumberPagination
from rest_framework.serializers import ModelSerializer
from test_decorators import body, created, write

from idempotency.decorators import idempotent
from idempotency.drf import IdempotencyMixin
from idempotency.models import IdempotencyKey
from testproject.shop.auth import authenticated
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE

ANY_BYTES = bytes(range(256)) + b"\r\n"


def _with_headers(status: int) -> HttpResponse:
    response = HttpResponse(b"{}", content_type="application/vnd.shop+json", status=status)
    for name, value in {
        "Location": "https://shop.example/payments/7?a=1&b=%20#c",
        "ETag": 'W/"v1"',
        "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT",
        "Link": '</payments/8>; rel="next", </payments/>; rel="collection"',
        "Vary": "Accept, X-Version",
        "Cache-Control": "private, max-age=60",
        "Content-Language": "de, en",
        "X-Zebra": "1",
        "x-lower-case": " two  words ",
        "A-Header": "ünïcode 💶",
        "X-Empty": "",
    }.items():
        response[name] = value
    return response


def _with_cookies() -> HttpResponse:
    response = HttpResponse(b"welcome")
    response.set_cookie("one", "1", secure=True, samesite="Lax", path="/work/")
    response.set_cookie("two", "2", httponly=True)
    response.delete_cookie("three")
    return response


def _without_type() -> HttpResponse:
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def _template(request: HttpRequest) -> TemplateResponse:
    django: Any = engines["django"]
    template = django.from_string("<p>{{ name }}</p>")
    return TemplateResponse(request, template, {"name": "<alice>"}, status=201)


def _missing() -> HttpResponse:
    raise Http404("There is no such thing.")


KEPT: dict[str, Callable[[HttpRequest], Any]] = {
    "bytes": lambda request: HttpResponse(ANY_BYTES, content_type="application/octet-stream"),
    "nothing": lambda request: HttpResponse(),
    "json": lambda request: JsonResponse({"amount": "12.50", "ü": None}, status=201),
    "latin-1": lambda request: HttpResponse("ü", charset="latin-1", content_type="text/plain"),
    "no-content": lambda request: HttpResponse(status=204),
    "no-type": lambda request: _without_type(),
    "headers": lambda request: _with_headers(201),
    "error-with-headers": lambda request: _with_headers(409),
    "cookies": lambda request: _with_cookies(),
    "redirect": lambda request: HttpResponseRedirect("/ünïcode/?a=1"),
    "permanent-redirect": lambda request: HttpResponsePermanentRedirect("//other.example/"),
    "reason": lambda request: HttpResponse(b"x", status=202, reason="Put aside"),
    "file": lambda request: FileResponse(
        io.BytesIO(ANY_BYTES), as_attachment=True, filename="Beleg für Alice.pdf"
    ),
    "template": _template,
    "missing": lambda request: _missing(),
}
NOT_KEPT: dict[str, Callable[[HttpRequest], Any]] = {
    "bad-request": lambda request: _with_headers(400),
    "unavailable": lambda request: _with_headers(503),
    "cookies-of-an-error": lambda request: _with_cookies_and(503),
    "stream-of-an-error": lambda request: StreamingHttpResponse(iter([ANY_BYTES]), status=500),
}


def _with_cookies_and(status: int) -> HttpResponse:
    response = _with_cookies()
    response.status_code = status
    return response


@pytest.fixture(params=EACH, ids=conftest._named)
def kind(
    request: pytest.FixtureRequest, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, bool]:
    """Every kind of door, half of them with ATOMIC_REQUESTS."""
    kind: tuple[str, bool] = request.param
    return kind


Answers = Callable[[Work], tuple[Any, Any, Any]]


@pytest.fixture
def answers(
    kind: tuple[str, bool], serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> Answers:
    """Ask a view that knows nothing of us, and the same view with us in it, twice."""

    def ask(work: Work) -> tuple[Any, Any, Any]:
        with monkeypatch.context() as bare:
            for doors in (conftest, framework):
                bare.setattr(doors, "idempotent", lambda: lambda view: view)
            bare.setattr(framework, "IdempotencyMixin", type("Nothing", (), {}))
            view = DOORS[kind[0]](work)
        serve(view)
        untouched = Door(view)()

        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", kind[1])
        view = DOORS[kind[0]](work)
        serve(view)
        door = Door(view)
        return untouched, door(), door()

    return ask


def everything(response: Any) -> dict[str, Any]:
    """Give all of a response that goes over the wire, in its order."""
    return {
        "status": response.status_code,
        "headers": list(response.items()),
        "cookies": response.cookies.output(),
        "body": body(response),
    }


@pytest.mark.parametrize("answer", KEPT)
def test_the_first_answer_is_not_altered_and_replays_exactly(answers: Answers, answer: str) -> None:
    """Status, headers in their order and bytes are those of the bare view, both times.

    Cookies belong to the first answer only. Django's responses have one value for each other name:
    several links are one `Link`.
    """
    untouched, first, retry = answers(KEPT[answer])

    expected, replayed = everything(untouched), everything(retry)
    assert everything(first) == expected
    assert (type(first), first.reason_phrase) == (type(untouched), untouched.reason_phrase)
    replayed["headers"].remove(("Idempotent-Replayed", "true"))
    assert replayed.pop("cookies") == ""
    assert replayed == {name: expected[name] for name in replayed}


@pytest.mark.parametrize("answer", NOT_KEPT)
def test_an_answer_that_is_not_kept_is_not_altered(answers: Answers, answer: str) -> None:
    """Neither the first nor the next, which is a first one again."""
    untouched, first, retry = answers(NOT_KEPT[answer])

    assert everything(first) == everything(retry) == everything(untouched)


def test_a_replayed_stream_has_a_length(answers: Answers) -> None:
    """It is no stream any more, so Django's middleware can tell; all else is the same."""
    untouched, first, retry = answers(
        lambda request: StreamingHttpResponse(iter([b"a", b"", ANY_BYTES]), status=206)
    )

    expected = everything(untouched)
    assert everything(first) == expected
    assert (retry["Content-Length"], retry["Idempotent-Replayed"]) == ("259", "true")
    del retry["Content-Length"], retry["Idempotent-Replayed"]
    assert everything(retry) == expected


def test_a_reason_phrase_is_not_kept(answers: Answers) -> None:
    """It means nothing (RFC 9112, section 4), and HTTP/2 has none."""
    _, first, retry = answers(KEPT["reason"])

    assert (first.reason_phrase, retry.reason_phrase) == ("Put aside", "Accepted")


# What stands above the door


def throttled(view: Any) -> Any:
    """Let one request through, as a throttle would."""
    count = itertools.count(1)
    if iscoroutinefunction(view):

        @wraps(view)
        async def async_wrapper(request: HttpRequest) -> Any:
            return await view(request) if next(count) == 1 else HttpResponse(status=429)

        return async_wrapper

    @wraps(view)
    def wrapper(request: HttpRequest) -> Any:
        return view(request) if next(count) == 1 else HttpResponse(status=429)

    return wrapper


PLAIN = ["function", "async-function", "class", "async-class"]


@pytest.mark.parametrize("kind", PLAIN)
def test_a_throttled_retry_gets_429_not_the_answer(
    alice: Account, serve: Callable[[Any], None], kind: str
) -> None:
    """What counts requests counts retries, too."""
    view = throttled(DOORS[kind](created))
    serve(view)
    door = Door(view)

    assert [door().status_code, door().status_code] == [201, 429]


@pytest.mark.parametrize("kind", PLAIN)
def test_a_revoked_permission_gets_403_not_the_answer(
    alice: Account, serve: Callable[[Any], None], kind: str
) -> None:
    """A retry is authorised again; with the permission back, the answer is still there."""
    permission = Permission.objects.get(codename="add_payment")
    alice.user.user_permissions.add(permission)
    view = permission_required("shop.add_payment", raise_exception=True)(DOORS[kind](created))
    serve(view)
    door = Door(view)

    first = door()
    alice.user.user_permissions.remove(permission)
    refused = door()
    alice.user.user_permissions.add(permission)
    retry = door()

    assert [first.status_code, refused.status_code] == [201, 403]
    assert first.content == retry.content
    assert first.json()["nonce"].encode() not in refused.content
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("kind", PLAIN)
def test_a_disabled_user_gets_401_not_the_answer(
    alice: Account, serve: Callable[[Any], None], kind: str
) -> None:
    """A retry is authenticated again."""
    view = authenticated(DOORS[kind](created))
    serve(view)
    door = Door(view)

    first = door()
    alice.user.is_active = False
    alice.user.save()
    refused = door()

    assert [first.status_code, refused.status_code] == [201, 401]
    assert first.json()["nonce"].encode() not in refused.content


# What is not covered


class PaymentSerializer(ModelSerializer[Payment]):
    """Payments in a list."""

    class Meta:
        model = Payment
        fields = ("id", "amount")


@pytest.mark.parametrize("pages", [PageNumberPagination, LimitOffsetPagination, CursorPagination])
def test_pages_of_the_framework_are_left_alone(
    alice: Account, serve: Callable[[Any], None], pages: Any
) -> None:
    """A GET with a key is a GET: every page is what it is without us, and changes with the rows."""
    for _ in range(5):
        write()

    class Payments(ListAPIView[Payment]):
        queryset = Payment.objects.order_by("-pk")
        serializer_class = PaymentSerializer
        pagination_class = type("Pages", (pages,), {"page_size": 2, "ordering": "-pk"})

    class Ours(IdempotencyMixin, Payments):
        idempotency = {"required": True}  # noqa: RUF012  # as users write it

    def all_pages() -> list[bytes]:
        found, address = [], "/work/?limit=2"
        while address:
            headers = {"Authorization": f"Bearer {ALICE.token}", "Idempotency-Key": "k"}
            response = Client().get(address, headers=headers)
            found.append(response.content)
            address = response.json()["next"]
        return found

    serve(Payments.as_view())
    untouched = all_pages()
    serve(Ours.as_view())

    assert len(untouched) == 3
    assert all_pages() == untouched
    write()
    assert all_pages() != untouched
    assert not IdempotencyKey.objects.exists()


def test_pages_of_django_are_left_alone(alice: Account, serve: Callable[[Any], None]) -> None:
    """The same for a plain view."""
    for _ in range(3):
        write()

    @idempotent(required=True)
    def view(request: HttpRequest) -> JsonResponse:
        pages = Paginator(Payment.objects.order_by("pk").values_list("pk", flat=True), 2)
        return JsonResponse(list(pages.get_page(request.GET["page"])), safe=False)

    serve(view)

    def page(number: int) -> Any:
        return Client().get(f"/work/?page={number}", headers={"Idempotency-Key": "k"}).json()

    assert (len(page(1)), len(page(2))) == (2, 1)
    write()
    assert len(page(2)) == 2
    assert not IdempotencyKey.objects.exists()
