"""What all tests share: the two customers, and ways to call a view as one of them."""

import json
import math
import os
import shutil
import types
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client
from django.test.utils import setup_databases, teardown_databases
from django.urls import clear_url_caches, include, path
from django.utils import translation
from django.utils.decorators import method_decorator
from django.views import View
from pytest_django import DjangoDbBlocker
from support import end_sessions, hang_up, shop

from idempotency.decorators import idempotent
from idempotency.tally import tally
from testproject import variants
from testproject.shop.models import Account
from testproject.shop.seed import ALICE, seed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Work = Callable[[HttpRequest], HttpResponseBase]


NEEDS = {
    "framework.py": ("adrf", "rest_framework"),
    "test_admin_browser.py": ("axe_playwright_python", "playwright"),
    "test_answers.py": ("adrf", "rest_framework"),
    "test_benchmarks.py": ("k9", "rich"),
    "test_browsable.py": ("adrf", "playwright", "rest_framework"),
    "test_browser.py": ("axe_playwright_python", "playwright"),
    "test_cap.py": ("drf_spectacular", "jsonschema", "rest_framework"),
    "test_celery.py": ("celery", "django_celery_beat"),
    "test_checks.py": ("adrf", "corsheaders", "rest_framework", "reversion"),
    "test_cost.py": ("k9", "rich"),
    "test_demo.py": ("rich",),
    "test_docs_code.py": ("adrf", "celery", "corsheaders", "rest_framework", "reversion", "rich"),
    "test_drf.py": ("adrf", "rest_framework"),
    "test_faults.py": ("k9", "rich"),
    "test_fuzz.py": ("k9", "rich"),
    "test_hostile.py": ("adrf", "rest_framework"),
    "test_locale.py": ("babel", "rest_framework"),
    "test_openapi.py": ("drf_spectacular", "rest_framework"),
    "test_packaging.py": ("build", "twine"),
    "test_purge_checks.py": ("django_celery_beat",),
    "test_schemathesis.py": ("drf_spectacular", "rest_framework", "schemathesis"),
    "test_site.py": ("axe_playwright_python", "furo", "myst_parser", "playwright"),
    "test_storage.py": ("k9", "rich"),
    "test_telemetry.py": ("opentelemetry",),
    "test_tenancy.py": ("django_tenants",),
    "test_test.py": ("rest_framework",),
}
"""The modules that need more than the core does, and are collected only where that is installed."""


def missing(module: str) -> list[str]:
    """Give the packages that a module of tests needs, and that are not installed."""
    return [package for package in NEEDS[module] if not find_spec(package)]


collect_ignore = [*filter(missing, NEEDS)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not collected, so that nobody takes a part for the whole."""
    for module in collect_ignore:
        terminalreporter.line(f"NOT RUN {module}: not installed: {', '.join(missing(module))}")


EMPTY = ";".join(
    f"DELETE FROM {table}"
    for table in (
        "idempotency_key",
        "idempotency_outcome",
        "idempotency_purge",
        "shop_payment",
        "shop_account",
        "django_admin_log",
        "auth_user_user_permissions",
        "auth_user",
        "django_session",
    )
)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: DjangoDbBlocker,
    django_db_keepdb: bool,
    django_db_createdb: bool,
) -> Iterator[None]:
    """Create the test database, whichever tests run.

    pytest-django's own would spare it where no test has its mark, and `committed` has none.
    """
    keep = django_db_keepdb and not django_db_createdb
    with django_db_blocker.unblock():
        databases = setup_databases(verbosity=0, interactive=False, keepdb=keep)
        hang_up()  # PgBouncer would lend a session that is older than the role's settings
    yield
    if not django_db_keepdb:
        with django_db_blocker.unblock():
            if settings.DATABASE_VARIANT == variants.PGBOUNCER:
                end_sessions()
            teardown_databases(databases, verbosity=0)


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Give a database where transactions are real; it is empty before and after."""
    assert connection.settings_dict["NAME"] == connection.settings_dict["TEST"]["NAME"]
    with django_db_blocker.unblock():
        yield
        with connection.cursor() as cursor:
            cursor.execute(EMPTY)  # pytest-django's TRUNCATE takes ten times as long


@pytest.fixture(autouse=True)
def patient_tally() -> None:
    """Let the tally wait for ever: its statement would come in between others now and then."""
    tally.forget()
    tally._due = math.inf


@pytest.fixture(autouse=True)
def own_language() -> Iterator[None]:
    """Take back the language that a request of the test client has switched to."""
    yield
    translation.deactivate()


ServeShop = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def serve_shop(django_db_setup: None) -> Iterator[ServeShop]:
    """Give clients of the shop, served for real; servers stay until all tests are done."""
    with ExitStack() as servers:

        @cache
        def serve_once(kind: str, **environment: str) -> httpx.Client:
            return servers.enter_context(shop(kind, **environment))

        yield serve_once


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
NO_CHROMIUM = (
    "The browser tests need Chromium, and there is none on the PATH: 'apt-get install chromium' "
    "or your system's like of it."
)
QUIET = [
    "--no-sandbox",  # which root cannot have; all that is opened is our own
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser_thread() -> Iterator[ThreadPoolExecutor]:
    """Give the thread where the browser is driven, and where tests that use one run.

    Playwright's sync API leaves an event loop running in its thread, where Django then refuses
    queries and ``async_to_sync``. Here that thread is its own, and all other tests are none the
    wiser. A test with a browser looks into the database by `support.elsewhere`.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser") as thread:
        yield thread


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that uses a browser on the browser's thread."""
    if "browser_thread" not in pyfuncitem.fixturenames:
        return None
    thread: Any = pyfuncitem.funcargs["browser_thread"]
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    thread.submit(pyfuncitem.obj, **wanted).result()
    return True


@pytest.fixture(scope="session")
def chromium() -> dict[str, Any]:
    """Say how to launch Chromium: the system's, for Playwright's own is not on PyPI."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_CHROMIUM)
    return {"executable_path": program, "args": QUIET}


@pytest.fixture(scope="session")
def browser(browser_thread: ThreadPoolExecutor, chromium: dict[str, Any]) -> Iterator["Browser"]:
    """Give a headless Chromium."""
    from playwright.sync_api import sync_playwright

    playwright = browser_thread.submit(sync_playwright().start).result()
    try:
        yield browser_thread.submit(playwright.chromium.launch, **chromium).result()
    finally:
        browser_thread.submit(playwright.stop).result()


@pytest.fixture
def page(browser: "Browser", browser_thread: ThreadPoolExecutor) -> Iterator["Page"]:
    """Give a page in a fresh profile: no cookies, no cache, no history."""
    context = browser_thread.submit(browser.new_context).result()
    yield browser_thread.submit(context.new_page).result()
    browser_thread.submit(context.close).result()


@pytest.fixture
def alice(committed: None) -> Account:
    """Alice's account."""
    return seed()[0]


@pytest.fixture
def customer(alice: Account) -> Client:
    """Alice, logged in with a session, at a browser that enforces CSRF tokens."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice.user)
    return client


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
if not missing("framework.py"):
    from framework import FRAMEWORK_DOORS

    DOORS |= FRAMEWORK_DOORS
ALL = [
    (door, atomic)
    for door in DOORS
    for atomic in (False, True)
    # Of functions of the framework with ATOMIC_REQUESTS a test of its own says what holds.
    if not (atomic and door in {"drf-function", "adrf-function"})
]
EACH = [
    ("function", False),
    ("async-function", True),
    ("class", True),
    ("async-class", False),
    ("drf-function", False),
    ("drf-class", True),
    ("drf-viewset", False),
    ("adrf-function", False),
    ("adrf-viewset", True),
]
EACH = [(door, atomic) for door, atomic in EACH if door in DOORS]


@dataclass
class Door:
    """A view behind one kind of door, and a client that calls it over Django's whole stack."""

    view: Any
    token: str | None = ALICE.token
    path: str = "/work/"
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def headers(self, **headers: str) -> dict[str, str]:
        """Give what the door's requests have for headers."""
        sent = {"Idempotency-Key": self.key} if self.key else {}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        return sent | {name.replace("_", "-"): value for name, value in headers.items()}

    def __call__(self, data: Any = None, *, method: str = "POST", **headers: str) -> Any:
        """Send a request with the door's key; keywords are headers, as in ``Accept="a/b"``."""
        sent = self.headers(**headers)
        body = data if isinstance(data, bytes) else json.dumps(data)
        client = Client(raise_request_exception=False)
        content_type = sent.pop("Content-Type", "application/json")
        return client.generic(method, self.path, body, content_type, headers=sent)


MakeDoor = Callable[..., Door]


@pytest.fixture
def serve(settings: Any) -> Iterator[Callable[[Any], None]]:
    """Serve a view at /work/ and at /other/, and the app's own addresses, and nothing else."""

    def serve_view(view: Any) -> None:
        urlconf = types.ModuleType("urlconf_of_one_test")
        urlconf.urlpatterns = [  # type: ignore[attr-defined]
            path("work/", view),
            path("other/", view),
            path("idempotency/", include("idempotency.urls")),
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
