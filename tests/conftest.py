"""What all tests share: the two customers, and ways to call a view as one of them."""

import json
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import clear_url_caches, path
from django.utils.decorators import method_decorator
from django.views import View
from pytest_django import DjangoDbBlocker
from support import shop

from idempotency.decorators import idempotent
from testproject.shop.models import Account
from testproject.shop.seed import ALICE, seed

Work = Callable[[HttpRequest], HttpResponseBase]


EMPTY = ";".join(
    f"DELETE FROM {table}"
    for table in ("idempotency_key", "shop_payment", "shop_account", "auth_user")
)


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Give a database where transactions are real; it is empty before and after."""
    with django_db_blocker.unblock():
        yield
        with connection.cursor() as cursor:
            cursor.execute(EMPTY)  # pytest-django's TRUNCATE takes ten times as long


ServeShop = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def serve_shop(django_db_setup: None) -> Iterator[ServeShop]:
    """Give clients of the shop, served for real; servers stay until all tests are done."""
    with ExitStack() as servers:

        @cache
        def serve_once(kind: str, **environment: str) -> httpx.Client:
            return servers.enter_context(shop(kind, **environment))

        yield serve_once


@pytest.fixture
def alice(committed: None) -> Account:
    """Alice's account."""
    return seed()[0]


def _function(work: Work, **options: Any) -> Any:
    @idempotent(**options)
    def view(request: HttpRequest) -> HttpResponseBase:
        return work(request)

    return view


def _async_function(work: Work, **options: Any) -> Any:
    @idempotent(**options)
    async def view(request: HttpRequest) -> HttpResponseBase:
        return await sync_to_async(work)(request)

    return view


def _class(work: Work, **options: Any) -> Any:
    @method_decorator(idempotent(**options), name="dispatch")
    class WorkView(View):
        def post(self, request: HttpRequest) -> HttpResponseBase:
            return work(request)

        get = patch = put = post

    return WorkView.as_view()


def _async_class(work: Work, **options: Any) -> Any:
    @method_decorator(idempotent(**options), name="dispatch")
    class WorkView(View):
        async def post(self, request: HttpRequest) -> HttpResponseBase:
            return await sync_to_async(work)(request)

        get = patch = put = post

    return WorkView.as_view()


DOORS = {
    "function": _function,
    "async-function": _async_function,
    "class": _class,
    "async-class": _async_class,
}
ALL = [(door, atomic) for door in DOORS for atomic in (False, True)]
EACH = [("function", False), ("async-function", True), ("class", True), ("async-class", False)]


@dataclass
class Door:
    """A view behind one kind of door, and a client that calls it over Django's whole stack."""

    view: Any
    token: str | None = ALICE.token
    path: str = "/work/"
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __call__(self, data: Any = None, *, method: str = "POST", **headers: str) -> Any:
        """Send a request with the door's key; ``Idempotency_Key=""``-like names are headers."""
        sent = {"Idempotency-Key": self.key} if self.key else {}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        body = data if isinstance(data, bytes) else json.dumps(data)
        client = Client(raise_request_exception=False)
        content_type = sent.pop("Content-Type", "application/json")
        return client.generic(method, self.path, body, content_type, headers=sent)


MakeDoor = Callable[..., Door]


@pytest.fixture
def serve(settings: Any) -> Iterator[Callable[[Any], None]]:
    """Serve a view at /work/ and /work/<n>/, and the app's own pages."""

    def serve_view(view: Any) -> None:
        urlconf = types.ModuleType("urlconf_of_one_test")
        urlconf.urlpatterns = [  # type: ignore[attr-defined]
            path("work/", view),
            path("other/", view),
        ]
        settings.ROOT_URLCONF = urlconf
        clear_url_caches()

    yield serve_view
    clear_url_caches()


def _named(pair: tuple[str, bool]) -> str:
    door, atomic = pair
    return f"{door}-{'atomic' if atomic else 'autocommit'}"


def _maker(
    pair: tuple[str, bool], serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> MakeDoor:
    kind, atomic_requests = pair
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)

    def make(work: Work, **options: Any) -> Door:
        view = DOORS[kind](work, **options)
        serve(view)
        return Door(view)

    return make


@pytest.fixture(params=ALL, ids=_named)
def make_any_door(
    request: pytest.FixtureRequest,
    alice: Account,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> MakeDoor:
    """Put some work behind every kind of door, with ATOMIC_REQUESTS off and on."""
    return _maker(request.param, serve, monkeypatch)


@pytest.fixture(params=EACH, ids=_named)
def make_door(
    request: pytest.FixtureRequest,
    alice: Account,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> MakeDoor:
    """Put some work behind every kind of door, in half of them with ATOMIC_REQUESTS."""
    return _maker(request.param, serve, monkeypatch)


@pytest.fixture
def make_function_door(
    alice: Account, serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> MakeDoor:
    """Put some work behind the plain decorator, where the kind of door cannot matter."""
    return _maker(("function", False), serve, monkeypatch)
