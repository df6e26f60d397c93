"""What only the framework's doors have; all they share with the others is in test_decorators."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import pytest
from adrf.decorators import api_view as async_api_view
from adrf.views import APIView as AsyncAPIView
from adrf.viewsets import ViewSet as AsyncViewSet
from asgiref.sync import async_to_sync
from conftest import Door, _named
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.utils.decorators import method_decorator
from framework import (
    CallerOfMiddleware,
    _async_framework_class,
    _async_framework_function,
    _async_framework_viewset,
    _framework_class,
    _framework_function,
    _framework_viewset,
)
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.decorators import action, api_view
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import (
    AdminRenderer,
    BaseRenderer,
    BrowsableAPIRenderer,
    JSONRenderer,
    StaticHTMLRenderer,
    TemplateHTMLRenderer,
)
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from test_decorators import created, problem, row, write, write_async
from test_forms import fill_in

from idempotency.decorators import idempotent
from idempotency.drf import IdempotencyMixin
from idempotency.models import IdempotencyKey
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, BOB

MakeFrameworkDoor = Callable[..., Door]
MAKERS = {
    "function": _framework_function,
    "class": _framework_class,
    "viewset": _framework_viewset,
}


@pytest.fixture(params=[(kind, atomic) for kind in MAKERS for atomic in (False, True)], ids=_named)
def make_framework_door(
    request: pytest.FixtureRequest,
    alice: Account,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> MakeFrameworkDoor:
    """Put some work behind each of the framework's doors, with attributes of the class."""
    kind, atomic_requests = request.param
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)

    def make(work: Any, attributes: dict[str, Any] | None = None, **options: Any) -> Door:
        view = MAKERS[kind](work, **options)
        for name, value in (attributes or {}).items():
            setattr(view.cls, name, value)
        if kind == "function":
            view = transaction.non_atomic_requests(view)
        serve(view)
        return Door(view)

    return make


@pytest.fixture(autouse=True)
def fresh_throttles() -> Iterator[None]:
    """Throttles count in the cache."""
    cache.clear()
    yield
    cache.clear()


def respond(request: Any) -> Response:
    """Write, and answer with the framework's own response."""
    return Response({"id": write().pk, "nonce": uuid.uuid4().hex}, 201, headers={"ETag": '"v1"'})


def test_a_rendered_response_replays(make_framework_door: MakeFrameworkDoor) -> None:
    """The framework renders late; what is kept are the rendered bytes and their type."""
    door = make_framework_door(respond)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 201
    assert first.content == retry.content
    for name in ("Content-Type", "ETag", "Allow", "Vary"):
        assert first.headers[name] == retry.headers[name]
    assert Payment.objects.count() == 1


class Shouting(BaseRenderer):
    """A renderer that looks into the database."""

    media_type = "text/shout"
    format = "shout"
    seen: list[bool] = []  # noqa: RUF012  # emptied by the test

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        self.seen.append(connection.in_atomic_block)
        return json.dumps(data).upper().encode()


def test_every_renderer_runs_inside_the_transaction(
    make_framework_door: MakeFrameworkDoor,
) -> None:
    """Once, with the first request."""
    Shouting.seen.clear()
    door = make_framework_door(respond, {"renderer_classes": [JSONRenderer, Shouting]})

    first, retry = door(Accept="text/shout"), door(Accept="text/shout")

    assert first.content == retry.content
    assert first.content.isupper()
    assert first.headers["Content-Type"] == retry.headers["Content-Type"]
    assert first.headers["Content-Type"].startswith("text/shout")
    assert Shouting.seen == [True]


def test_the_browsable_api_replays(make_framework_door: MakeFrameworkDoor) -> None:
    """A page is an answer like another."""
    door = make_framework_door(respond)

    first, retry = door(Accept="text/html"), door(Accept="text/html")

    assert first.headers["Content-Type"] == retry.headers["Content-Type"]
    assert first.headers["Content-Type"].startswith("text/html")
    assert first.content == retry.content
    assert Payment.objects.count() == 1


PAGE = "<p>{{ id }} {{ nonce }}</p>"
RENDERERS: dict[str, tuple[type[BaseRenderer], str]] = {
    "json": (JSONRenderer, "application/json"),
    "browsable": (BrowsableAPIRenderer, "text/html"),
    "admin": (AdminRenderer, "text/html"),
    "template": (TemplateHTMLRenderer, "text/html"),
    "static": (StaticHTMLRenderer, "text/html"),
}


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("refuses", [False, True], ids=["accepted", "refused"])
def test_every_renderer_of_the_framework_replays(
    make_framework_door: MakeFrameworkDoor, settings: Any, name: str, refuses: bool
) -> None:
    """What it rendered first, for an answer and for a raised refusal, is what a retry gets."""
    loaders = [("django.template.loaders.locmem.Loader", {"page.html": PAGE})]
    framework = "django.template.loaders.app_directories.Loader"
    settings.TEMPLATES = [
        {**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": {"loaders": [*loaders, framework]}}
    ]
    renderer, accept = RENDERERS[name]

    def work(request: Any) -> Response:
        payment = write()
        if refuses:
            raise Declined(uuid.uuid4().hex)
        data: Any = {"id": payment.pk, "nonce": uuid.uuid4().hex}
        return Response(str(data) if name == "static" else data, 201, template_name="page.html")

    door = make_framework_door(work, {"renderer_classes": [renderer]})

    first, retry = door(Accept=accept), door(Accept=accept)

    assert first.status_code == retry.status_code == (402 if refuses else 201)
    assert retry.headers.pop("Idempotent-Replayed")
    assert first.content
    assert first.content == retry.content
    # Of the middleware for CSRF, whose token is in some of the pages.
    cookie = ("Vary", "Cookie")
    assert [item for item in first.items() if item != cookie] == list(retry.items())
    assert Payment.objects.count() == (0 if refuses else 1)


def test_no_content_replays(make_framework_door: MakeFrameworkDoor) -> None:
    """A 204 has no body and no type."""
    door = make_framework_door(lambda request: Response(status=204))

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 204
    assert first.content == retry.content == b""
    assert first.headers.get("Content-Type") == retry.headers.get("Content-Type")


class Declined(APIException):
    """A refusal of the framework's kind."""

    status_code = 402


def test_a_raised_refusal_is_kept_but_nothing_it_wrote(
    make_framework_door: MakeFrameworkDoor,
) -> None:
    """An APIException rolls back, and its answer is kept by the same table."""
    hooks: list[str] = []

    def work(request: Any) -> Response:
        write()
        transaction.on_commit(lambda: hooks.append("ran"))
        raise Declined(uuid.uuid4().hex)

    door = make_framework_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 402
    assert first.content == retry.content
    assert retry.headers["Idempotent-Replayed"] == "true"
    assert (Payment.objects.count(), hooks) == (0, [])


def test_an_error_of_a_hook_is_not_answered_for(make_framework_door: MakeFrameworkDoor) -> None:
    """All has been committed: a 400 would say that nothing was done. The retry tells the truth."""

    def validate() -> None:
        raise serializers.ValidationError("too late")

    def work(request: Any) -> Response:
        transaction.on_commit(validate)
        return respond(request)

    door = make_framework_door(work)

    assert [door().status_code, door().status_code] == [500, 201]
    assert Payment.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["declined", "refused"])
def test_inside_a_test_case_an_error_ends_no_more_than_it_should(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The framework marks what ATOMIC_REQUESTS has opened; that is not the test's transaction."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", 1)

    class Refusing(IdempotencyMixin, APIView):
        idempotency: ClassVar[dict[str, Any]] = {"scope": lambda request: "partner:1"}
        authentication_classes = ()
        permission_classes = (IsAuthenticated,) if path == "refused" else ()

        def post(self, request: Any) -> Response:
            raise Declined

    request = RequestFactory().post("/", headers={"Idempotency-Key": "k"})

    view = Refusing.as_view()
    first, retry = view(request), view(request)

    assert first.status_code == retry.status_code == (402 if path == "declined" else 403)
    assert ("Idempotent-Replayed" in retry.headers) == (path == "declined")
    assert not Payment.objects.exists()  # it can be asked


def test_a_validation_error_after_a_write_leaves_nothing(
    make_framework_door: MakeFrameworkDoor,
) -> None:
    """The framework answers 400, nothing that was written before stays, and a retry runs again."""
    runs: list[str] = []

    def work(request: Any) -> Response:
        runs.append("ran")
        write()
        raise serializers.ValidationError({"amount": "no"})

    door = make_framework_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 400
    assert json.loads(first.content) == {"amount": "no"}
    assert len(runs) == 2
    assert Payment.objects.count() == 0


def test_the_projects_exception_handler_is_asked(
    make_framework_door: MakeFrameworkDoor, settings: Any
) -> None:
    """What a custom EXCEPTION_HANDLER makes of an exception is the answer, and is kept."""
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "test_drf.handle_zero"}

    def work(request: Any) -> Response:
        write()
        raise ZeroDivisionError

    door = make_framework_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 409
    assert first.content == retry.content
    assert Payment.objects.count() == 0


def handle_zero(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer what the framework would not know."""
    assert context["view"].request is context["request"]
    nonce = {"nonce": uuid.uuid4().hex}
    return Response(nonce, status=409) if isinstance(error, ZeroDivisionError) else None


def test_the_exception_handler_is_asked_once(
    make_framework_door: MakeFrameworkDoor, settings: Any
) -> None:
    """What it does not answer passes, through the framework's dispatch, too."""
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "test_drf.note_and_pass"}
    asked.clear()
    errors = [ZeroDivisionError("first"), ZeroDivisionError("second")]

    def work(request: Any) -> Response:
        raise errors[len(asked)]

    door = make_framework_door(work)

    assert [door().status_code, door().status_code] == [500, 500]
    assert asked == errors


asked: list[Exception] = []


def note_and_pass(error: Exception, context: dict[str, Any]) -> None:
    """Answer nothing."""
    asked.append(error)


def test_an_exception_in_the_exception_handler_is_an_error(
    make_framework_door: MakeFrameworkDoor, settings: Any
) -> None:
    """It passes like any other, and nothing is kept."""
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "test_drf.fail"}

    def work(request: Any) -> Response:
        write()
        raise ZeroDivisionError

    door = make_framework_door(work)

    assert door().status_code == 500
    assert Payment.objects.count() == 0
    assert row(door).status == "in_progress"


def fail(error: Exception, context: dict[str, Any]) -> None:
    """Fail on the failure, which is the view's and never our own."""
    assert isinstance(error, ZeroDivisionError)
    raise RuntimeError from error


@pytest.mark.parametrize("option", ["scope", "fingerprint"])
def test_a_refusal_of_a_resolver_is_an_answer(
    make_framework_door: MakeFrameworkDoor, option: str
) -> None:
    """What tells whose key it is, or what counts of the body, may find that the request is bad."""

    def refuse(request: HttpRequest) -> str:
        raise serializers.ValidationError({"id": "no"})

    door = make_framework_door(respond, **{option: refuse})

    response = door()

    assert (response.status_code, response.json()) == (400, {"id": "no"})
    assert not IdempotencyKey.objects.exists()
    assert Payment.objects.count() == 0


# What comes before the claim


def test_a_disabled_user_gets_401_not_the_answer(alice: Account, client: Client) -> None:
    """A retry is authenticated again."""
    assert pay(client, "k").status_code == 201
    alice.user.is_active = False
    alice.user.save()

    response = pay(client, "k")

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Token"
    assert b"amount" not in response.content


def test_a_revoked_permission_gets_403_not_the_answer(
    make_framework_door: MakeFrameworkDoor, alice: Account
) -> None:
    """A retry is authorised again; with the permission back, the answer is still there."""

    class MayPay(BasePermission):
        def has_permission(self, request: Any, view: Any) -> bool:
            return bool(request.user.has_perm("shop.add_payment"))

    permission = Permission.objects.get(codename="add_payment")
    alice.user.user_permissions.add(permission)
    door = make_framework_door(respond, {"permission_classes": [MayPay]})

    first = door()
    alice.user.user_permissions.remove(permission)
    refused = door()
    alice.user.user_permissions.add(permission)
    retry = door()

    assert [first.status_code, refused.status_code] == [201, 403]
    assert first.content == retry.content
    assert first.json()["nonce"].encode() not in refused.content


def test_a_throttled_retry_gets_429_not_the_answer(
    make_framework_door: MakeFrameworkDoor,
) -> None:
    """A retry is throttled like any request."""

    class Once(UserRateThrottle):
        rate = "1/day"

    door = make_framework_door(respond, {"throttle_classes": [Once]})

    first, retry = door(), door()

    assert [first.status_code, retry.status_code] == [201, 429]
    assert "Retry-After" in retry.headers


def test_what_is_refused_before_the_claim_leaves_no_key(
    make_framework_door: MakeFrameworkDoor,
) -> None:
    """Malformed bodies, unknown media types, unacceptable types and unsupported methods."""

    class JSONOnly(DefaultContentNegotiation):
        def select_parser(self, request: Any, parsers: Any) -> Any:
            return super().select_parser(request, parsers[:1])

    door = make_framework_door(
        respond, {"content_negotiation_class": JSONOnly, "renderer_classes": [JSONRenderer]}
    )

    statuses = [
        door(b"{").status_code,
        door(b"x", Content_Type="text/plain").status_code,
        door(Accept="image/png").status_code,
    ]

    assert statuses == [400, 415, 406]
    assert not IdempotencyKey.objects.exists()


def test_a_method_that_is_not_there_leaves_no_key(
    alice: Account, serve: Callable[[Any], None]
) -> None:
    """A 405 is no attempt at anything."""

    class ReadOnly(IdempotencyMixin, APIView):
        def get(self, request: Any) -> Response:
            return Response()

    view = ReadOnly.as_view()
    serve(view)

    assert Door(view)().status_code == 405
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize("base", [APIView, ViewSet])
def test_a_method_that_is_switched_off_stays_off(
    alice: Account, serve: Callable[[Any], None], base: Any
) -> None:
    """`http_method_names` is how a view set is made read-only: a key must not bring it back."""

    class ReadOnly(IdempotencyMixin, base):  # type: ignore[misc]  # one of two
        http_method_names = ["get"]  # noqa: RUF012  # as users write it

        def post(self, request: Any) -> Response:
            return respond(request)

        create = post

    view = ReadOnly.as_view(**({"actions": {"post": "create"}} if base is ViewSet else {}))
    serve(view)

    assert Door(view)().status_code == 405
    assert Payment.objects.count() == 0
    assert not IdempotencyKey.objects.exists()


# Functions


@pytest.mark.parametrize(
    ("maker", "sentence"),
    [
        # Ours says what to do; async views are refused by Django itself.
        (_framework_function, r"over @api_view put @transaction\.non_atomic"),
        (_async_framework_function, "ATOMIC_REQUESTS"),
    ],
    ids=["sync", "async"],
)
def test_under_atomic_requests_a_function_needs_one_more_line(
    alice: Account,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    maker: Any,
    sentence: str,
) -> None:
    """@api_view hides the function from ATOMIC_REQUESTS: without the line it is refused."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", 1)
    view = maker(created)
    serve(view)
    with pytest.raises(RuntimeError, match=sentence):
        send_raising(Door(view))
    assert Payment.objects.count() == 0

    view = transaction.non_atomic_requests(view)
    serve(view)
    door = Door(view)
    assert door().content == door().content
    assert Payment.objects.count() == 1


def send_raising(door: Door) -> None:
    """Send a request, and let what the view raises pass."""
    headers = {"Idempotency-Key": "k", "Authorization": f"Bearer {ALICE.token}"}
    Client().post("/work/", {}, "application/json", headers=headers)


def test_above_api_view_the_decorator_is_refused() -> None:
    """There it would run before the framework knows who is calling."""
    with pytest.raises(TypeError, match="under @api_view"):
        idempotent(api_view(["POST"])(created))


# Async views, of adrf


def _async_views(work: Callable[[Any], Awaitable[Any]]) -> dict[str, Any]:
    """Put some async work behind each of adrf's kinds of view."""

    async def run(self: Any, request: Any) -> Any:
        return await work(request)

    @idempotent
    async def function(request: Any) -> Any:
        return await work(request)

    body = {"authentication_classes": [CallerOfMiddleware]}
    function.authentication_classes = body["authentication_classes"]  # type: ignore[attr-defined]
    one: Any = type("View", (IdempotencyMixin, AsyncAPIView), body | {"post": run})
    many: Any = type("ViewSet", (IdempotencyMixin, AsyncViewSet), body | {"create": run})
    return {
        "function": async_api_view(["POST"])(function),
        "class": one.as_view(),
        "viewset": many.as_view({"post": "create"}),
    }


@pytest.mark.parametrize("kind", ["function", "class", "viewset"])
def test_an_async_view_works_in_one_transaction(
    alice: Account, serve: Callable[[Any], None], kind: str
) -> None:
    """Under ASGI its async ORM calls are of one transaction, which a refusal takes back."""
    refuses = iter([True, False])

    async def work(request: Any) -> Response:
        payment = await write_async()
        if next(refuses):
            raise Declined
        return Response({"id": payment.pk}, 201)

    serve(_async_views(work)[kind])

    def send(key: str) -> Any:
        headers = {"Authorization": f"Bearer {ALICE.token}", "Idempotency-Key": key}
        return async_to_sync(AsyncClient().post)("/work/", headers=headers)

    first, retry = send("a"), send("a")
    assert first.status_code == retry.status_code == 402
    assert Payment.objects.count() == 0
    first, retry = send("b"), send("b")
    assert first.status_code == retry.status_code == 201
    assert first.content == retry.content
    assert retry.headers["Idempotent-Replayed"] == "true"
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("kind", ["function", "class", "viewset"])
def test_what_an_async_view_leaves_behind_finds_no_database(
    alice: Account, serve: Callable[[Any], None], kind: str
) -> None:
    """A task that outlives its view, and with that the transaction, gets an error."""
    left: list[asyncio.Task[Any]] = []
    may_write = asyncio.Event()

    async def write_late() -> None:
        await may_write.wait()
        await write_async()

    async def work(request: Any) -> Response:
        left.append(asyncio.create_task(write_late()))
        await Account.objects.aget(pk=alice.pk)
        return Response(status=201)

    serve(_async_views(work)[kind])

    async def send() -> int:
        headers = {"Authorization": f"Bearer {ALICE.token}", "Idempotency-Key": "k"}
        response = await AsyncClient().post("/work/", headers=headers)
        may_write.set()
        with pytest.raises(RuntimeError, match="Await every task"):
            await left[0]
        return int(response.status_code)

    assert async_to_sync(send)() == 201
    assert Payment.objects.count() == 0


def test_an_async_view_set_may_have_sync_actions(
    alice: Account, serve: Callable[[Any], None]
) -> None:
    """adrf runs them on a thread, and so do we."""

    class Mixed(IdempotencyMixin, AsyncViewSet):  # type: ignore[misc]  # it has no types
        authentication_classes = (CallerOfMiddleware,)

        def create(self, request: Any) -> Response:
            return respond(request)

        async def list(self, request: Any) -> Response:
            return Response()

    view = Mixed.as_view({"post": "create", "get": "list"})
    serve(view)
    door = Door(view)

    assert door().content == door().content
    assert door(method="GET").status_code == 200
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("maker", [_async_framework_class, _async_framework_viewset])
def test_under_atomic_requests_an_uncovered_async_view_is_atomic(
    alice: Account, serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, maker: Any
) -> None:
    """What the framework answers for an exception leaves nothing, as in a sync view."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", 1)

    def work(request: Any) -> Response:
        write()
        raise Declined

    view = maker(work)
    serve(view)

    assert Door(view, key="")().status_code == 402
    assert Payment.objects.count() == 0


# Classes


def test_decorating_dispatch_of_a_framework_class_is_refused(
    alice: Account, serve: Callable[[Any], None]
) -> None:
    """It would run before the framework knows who is calling; loudly, with the sentence."""

    @method_decorator(idempotent, name="dispatch")
    class Wrong(APIView):
        def post(self, request: Any) -> Response:
            return respond(request)

    view = Wrong.as_view()
    serve(view)

    with pytest.raises(TypeError, match="IdempotencyMixin"):
        send_raising(Door(view))
    assert Payment.objects.count() == 0


def test_a_charset_that_no_text_has_is_refused(
    make_framework_door: MakeFrameworkDoor,
) -> None:
    """A 400, where the framework alone would fail."""
    door = make_framework_door(respond)

    response = door(b"--x--", Content_Type="multipart/form-data; boundary=x; charset=hex")

    assert response.status_code in {201, 400}


def test_the_mixin_must_come_first() -> None:
    """After the base class nobody would ask it."""
    with pytest.raises(TypeError, match=r"class Late\(IdempotencyMixin, \.\.\.\)"):

        class Late(APIView, IdempotencyMixin):
            pass


def test_a_dispatch_behind_the_mixin_is_refused() -> None:
    """Requests with a key would skip it, and whatever it asks for; before the mixin it is fine."""
    with pytest.raises(TypeError, match=r"LoginRequiredMixin\.dispatch would be skipped"):

        class Open(IdempotencyMixin, LoginRequiredMixin, APIView):
            pass

    class Closed(LoginRequiredMixin, IdempotencyMixin, APIView):
        def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            return super().dispatch(request, *args, **kwargs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exception_handler": print}, "EXCEPTION_HANDLER"),
        ({"ttl": 1}, "ttl= must be"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_wrong_options_are_refused_where_the_class_is_defined(
    options: dict[str, Any], sentence: str
) -> None:
    """Not with the first request."""
    with pytest.raises((TypeError, ValueError), match=sentence):
        type("Wrong", (IdempotencyMixin, APIView), {"idempotency": options})


def test_actions_have_options_of_their_own(alice: Account, serve: Callable[[Any], None]) -> None:
    """@action(idempotency=...) goes before the class's, and methods can tell actions apart."""

    class Views(IdempotencyMixin, ViewSet):
        idempotency = {"required": True}  # noqa: RUF012  # as users write it

        def create(self, request: Any) -> HttpResponse:
            return HttpResponse(self.action)

        @action(detail=False, methods=["post"], idempotency={})
        def optional(self, request: Any) -> HttpResponse:
            return HttpResponse(self.action)

    required = Views.as_view({"post": "create"})
    serve(required)
    door = Door(required, key="")
    assert problem(door()) == "missing-key"

    optional = Views.as_view({"post": "optional"}, **Views.optional.kwargs)
    serve(optional)
    assert door().content == b"optional"


def test_the_scope_can_be_computed(alice: Account, serve: Callable[[Any], None]) -> None:
    """By a method, where callers are not users."""

    class Hook(IdempotencyMixin, APIView):
        def get_idempotency_scope(self, request: HttpRequest) -> str | None:
            return request.headers.get("X-Partner")

        def post(self, request: Any) -> Response:
            return respond(request)

    view = Hook.as_view()
    serve(view)
    door = Door(view, token=None)

    assert problem(door()) == "unscoped-caller"
    assert door(X_Partner="partner:1").content == door(X_Partner="partner:1").content
    assert row(door).scope == "partner:1"


def test_what_counts_of_the_body_can_be_computed(
    alice: Account, serve: Callable[[Any], None]
) -> None:
    """By a method, which finds the body parsed; or by the view's argument, which goes before it."""

    class Hook(IdempotencyMixin, APIView):
        def get_idempotency_fingerprint(self, request: HttpRequest) -> bytes | str:
            view: Any = self
            return str(view.request.data["id"])

        def post(self, request: Any) -> Response:
            return respond(request)

    view = Hook.as_view()
    serve(view)
    door = Door(view)

    assert door({"id": 1, "sent": "10:00"}).content == door({"id": 1, "sent": "10:01"}).content
    assert problem(door({"id": 2})) == "key-reused"

    serve(Hook.as_view(idempotency={"fingerprint": lambda request: b"constant"}))
    door = Door(view, key="another")
    assert door({"id": 1}).content == door({"id": 2}).content


# The shop


def pay(client: Client, key: str, card: str = "tok_visa", token: str = ALICE.token) -> Any:
    """Send a payment to the shop's API."""
    headers = {"Authorization": f"Token {token}", "Idempotency-Key": key}
    body = {"amount": "12.50", "currency": "EUR", "card": card}
    return client.post("/api/payments/", body, "application/json", headers=headers)


@pytest.mark.parametrize(
    ("card", "status", "payments"),
    [
        ("tok_visa", 201, 1),
        ("tok_declined", 402, 0),
        ("tok_returns_402", 402, 1),
        ("tok_binary", 201, 1),
    ],
)
def test_the_shops_cards(
    alice: Account, client: Client, card: str, status: int, payments: int
) -> None:
    """The same cards as the plain views, with the same effects; a retry replays each."""
    first, retry = pay(client, "k", card), pay(client, "k", card)

    assert first.status_code == retry.status_code == status
    assert first.content == retry.content
    assert retry.headers["Idempotent-Replayed"] == "true"
    assert Payment.objects.count() == payments


@pytest.mark.parametrize("card", ["tok_error", "tok_returns_500", "tok_returns_400", "nope"])
def test_the_shops_failing_cards(alice: Account, card: str) -> None:
    """Nothing stays of them."""
    client = Client(raise_request_exception=False)

    assert pay(client, "k", card).status_code in {400, 500}
    assert pay(client, "k", card).status_code in {400, 500}
    assert Payment.objects.count() == 0


def test_the_shops_payments_are_their_owners(alice: Account, client: Client) -> None:
    """Alice sees hers and gives one back, once; Bob sees none of it, even with her key."""
    payment = pay(client, "k").json()
    headers = {"Authorization": f"Token {ALICE.token}"}
    listed = client.get("/api/payments/", headers=headers).json()
    assert [found["id"] for found in listed] == [payment["id"]]

    refund = f"/api/payments/{payment['id']}/refund/"
    bobs = {"Authorization": f"Token {BOB.token}", "Idempotency-Key": "r"}
    assert client.post(refund, headers=bobs).status_code == 404
    keyed = headers | {"Idempotency-Key": "r"}
    first, retry = client.post(refund, headers=keyed), client.post(refund, headers=keyed)
    assert first.status_code == retry.status_code == 200
    assert first.content == retry.content
    assert first.json()["refunded"] is True
    assert client.post(refund, headers=headers).status_code == 402

    alice.refresh_from_db()
    assert alice.balance == 1000
    assert pay(client, "k", token=BOB.token).json()["id"] != payment["id"]


@pytest.mark.parametrize("pk", ["2.5", "none", "9" * 30, "%00"])
def test_a_payment_that_cannot_be_is_not_found(alice: Account, client: Client, pk: str) -> None:
    """In the framework's words, as any other of the API's answers."""
    headers = {"Authorization": f"Token {ALICE.token}"}

    for response in (
        client.get(f"/api/payments/{pk}/", headers=headers),
        client.post(f"/api/payments/{pk}/refund/", headers=headers),
    ):
        assert response.status_code == 404
        assert set(response.json()) == {"detail"}


# Forms


def test_the_framework_takes_forms_of_a_session(customer: Client, serve: Any) -> None:
    """Its own authentication reads the CSRF token from the form, before us."""

    class WorkView(IdempotencyMixin, APIView):
        authentication_classes = (SessionAuthentication,)
        idempotency = {"form": True}  # noqa: RUF012

        def post(self, request: Any) -> Response:
            return Response({"id": write().pk, "a": request.data["a"]}, status=201)

    fields = fill_in(customer.get("/checkout/"), a="1")
    serve(WorkView.as_view())

    first, retry = (customer.post("/work/", fields) for _ in range(2))

    assert (first.status_code, retry.content) == (201, first.content)
    assert Payment.objects.count() == 1


@pytest.mark.parametrize(
    ("attributes", "status"),
    [({"parser_classes": ()}, 415), ({"permission_classes": (IsAuthenticated,)}, 403)],
)
def test_the_framework_comes_first(
    alice: Account, serve: Any, attributes: dict[str, Any], status: int
) -> None:
    """A form that it would not let in, or not parse, is not read for a key."""

    class WorkView(IdempotencyMixin, APIView):
        authentication_classes = ()
        idempotency = {"form": True}  # noqa: RUF012

        def post(self, _request: Any) -> Response:
            raise AssertionError

    for name, value in attributes.items():
        setattr(WorkView, name, value)
    serve(WorkView.as_view())

    response = Client().post("/work/", b"--between--", "multipart/form-data; boundary=between")
    assert response.status_code == status
