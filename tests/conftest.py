"""What all tests share: the two customers, and ways to call a view as one of them."""

import json
import types
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import clear_url_caches, path
from django.utils.decorators import method_decorator
from django.views import View

from idempotency.decorators import idempotent
from testproject.shop.models import Account
from testproject.shop.seed import ALICE, seed

Work = Callable[[HttpRequest], HttpResponseBase]


@pytest.fixture
def alice(transactional_db: None) -> Account:
    """Alice's account, in a database where transactions are real."""
    return seed()[0]


@pytest.fixture(params=["", "ATOMIC_REQUESTS"], ids=["autocommit", "atomic-requests"])
def atomic_requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test with ATOMIC_REQUESTS off and on."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", bool(request.param))
    return bool(request.param)


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


@pytest.fixture(params=DOORS)
def make_door(
    request: pytest.FixtureRequest,
    alice: Account,
    atomic_requests: bool,
    serve: Callable[[Any], None],
) -> MakeDoor:
    """Put some work behind every kind of door, with ATOMIC_REQUESTS off and on."""

    def make(work: Work, **options: Any) -> Door:
        view = DOORS[request.param](work, **options)
        serve(view)
        return Door(view)

    return make


@pytest.fixture
def make_function_door(alice: Account, serve: Callable[[Any], None]) -> MakeDoor:
    """Put some work behind the plain decorator, where the kind of door cannot matter."""

    def make(work: Work, **options: Any) -> Door:
        view = _function(work, **options)
        serve(view)
        return Door(view)

    return make
