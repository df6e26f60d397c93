"""What `manage.py check` says before a request can go wrong, each where it speaks and is silent."""

import gzip
import types
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial, wraps
from typing import Any

import corsheaders.defaults
import pytest
from conftest import DOORS, Door, MakeDoor
from django.contrib.auth.decorators import (
    login_required,
    permission_required,
    user_passes_test,
)
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.models import User
from django.core.checks import CheckMessage, run_checks
from django.db import connection, connections
from django.db.transaction import atomic, non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from framework import CallerOfMiddleware
from rest_framework.decorators import action
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from reversion.middleware import RevisionMiddleware
from support import hang_up, session

from idempotency.decorators import idempotent
from idempotency.drf import IdempotencyMixin
from idempotency.server_checks import check_server
from testproject.shop.models import Account, Payment

Serve = Callable[[Any], None]


def said(**kwargs: Any) -> dict[str, CheckMessage]:
    """Run all checks, and give what ours say; nothing is said twice."""
    ours = [m for m in run_checks(**kwargs) if m.id and m.id.startswith("idempotency.")]
    assert all(message.hint for message in ours)
    found = {message.id or "": message for message in ours}
    assert len(found) == len(ours)
    return found


def test_the_shop_is_configured_well(committed: None) -> None:
    """Nothing to say, of its server either."""
    connection.close()  # it was opened before the role's sessions were bounded

    assert said(databases=["default"]) == {}


# Settings


def test_wrong_settings_are_errors(settings: Any) -> None:
    """One for each."""
    settings.IDEMPOTENCY = {"TTL": 1, "STRICT": 1, "UNKNOWN": 1}

    assert [m.id for m in run_checks()].count("idempotency.E001") == 3
    assert {m.id for m in run_checks()} == {"idempotency.E001"}


@pytest.mark.parametrize(("attribute", "value"), [("vendor", "mysql"), ("Database", pytest)])
def test_another_database_is_an_error(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any
) -> None:
    """The promise is kept by PostgreSQL, through psycopg 3."""
    monkeypatch.setattr(connections["default"], attribute, value)

    message = said(databases=["default"] if attribute == "vendor" else [])["idempotency.E002"]
    assert "need PostgreSQL and psycopg 3" in message.msg


def test_autocommit_off_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request with a key would be refused."""
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)  # noqa: FBT003

    assert set(said()) == {"idempotency.E003"}


def test_keys_that_expire_during_a_wait_are_an_error(settings: Any) -> None:
    """By the settings alone."""
    settings.IDEMPOTENCY = {"TTL": timedelta(seconds=30), "MAX_WAIT": 30}
    assert "IDEMPOTENCY['TTL']" in said()["idempotency.E004"].msg

    settings.IDEMPOTENCY = {"TTL": timedelta(seconds=30), "MAX_WAIT": 29}
    assert said() == {}


def test_keys_that_expire_before_a_client_comes_back_are_an_error(settings: Any) -> None:
    """It is told to come back after a second, and its way takes time."""
    settings.IDEMPOTENCY = {"TTL": timedelta(seconds=5), "MAX_WAIT": 0}
    assert "IDEMPOTENCY['TTL']" in said()["idempotency.E004"].msg

    settings.IDEMPOTENCY = {"TTL": timedelta(seconds=6), "MAX_WAIT": 0}
    assert said() == {}


# Databases


class Router:
    """Writes the payments elsewhere, and decides by the request about accounts."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        if model is Account:
            raise LookupError("There is no request.")
        return "ledger" if model.__name__ == "Payment" else None


def test_models_written_elsewhere_are_a_warning(settings: Any) -> None:
    """They are named; a router that cannot answer yet is not asked again."""
    settings.DATABASE_ROUTERS = [Router()]

    message = said()["idempotency.W001"]

    assert "written to 'ledger': shop.Payment. " in message.msg


def test_many_models_written_elsewhere_are_counted(settings: Any) -> None:
    """Five names tell enough."""
    elsewhere = types.SimpleNamespace(
        db_for_write=lambda model, **hints: (
            None if model._meta.app_label == "idempotency" else "ledger"
        )
    )
    settings.DATABASE_ROUTERS = [elsewhere]

    assert " more. " in said()["idempotency.W001"].msg


def test_models_that_are_not_managed_are_not_judged(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are somebody else's tables."""
    settings.DATABASE_ROUTERS = [Router()]
    monkeypatch.setattr(Payment._meta, "managed", False)

    assert said() == {}


def test_keys_in_a_mirror_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a replica, or else a connection of its own."""
    monkeypatch.setitem(connection.settings_dict["TEST"], "MIRROR", "primary")

    assert "a mirror of 'primary'" in said()["idempotency.W002"].msg


# Middleware


class Careful(RevisionMiddleware):  # type: ignore[misc]  # it has no types
    """Does not wrap requests in a transaction."""

    atomic = False


class Choosy(RevisionMiddleware):  # type: ignore[misc]  # it has no types
    """Decides by the request."""

    def request_creates_revision(self, request: HttpRequest) -> bool:
        return "admin" in request.path


class Elsewhere(RevisionMiddleware):  # type: ignore[misc]  # it has no types
    """Keeps revisions in another database."""

    using = "revisions"


def wear(settings: Any, middleware: str) -> None:
    """Put a middleware into use, at the inner end."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "reversion"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, middleware]


def test_a_revision_around_every_request_is_an_error(
    settings: Any, make_function_door: MakeDoor
) -> None:
    """As it says, requests with a key are refused."""
    door = make_function_door(lambda request: HttpResponse(status=201))
    assert said() == {}

    wear(settings, "reversion.middleware.RevisionMiddleware")

    assert set(said()) == {"idempotency.E005"}
    assert_refused(door)


def test_the_mend_for_revisions_is_one(settings: Any, make_function_door: MakeDoor) -> None:
    """The subclass that the hint names."""
    door = make_function_door(lambda request: HttpResponse(status=201))

    wear(settings, f"{__name__}.Careful")

    assert said() == {}
    assert [door().status_code, door()["Idempotent-Replayed"]] == [201, "true"]


@pytest.mark.parametrize("kind", [Choosy, Elsewhere])
def test_revisions_that_may_leave_keys_alone_are_not_judged(settings: Any, kind: type) -> None:
    """What is not certain is not said."""
    wear(settings, f"{__name__}.{kind.__name__}")

    assert said() == {}


def test_cors_without_the_key_is_a_warning(settings: Any) -> None:
    """Browsers would not send it; in whichever case it is named, they do."""
    settings.MIDDLEWARE = ["corsheaders.middleware.CorsMiddleware", *settings.MIDDLEWARE]
    assert set(said()) == {"idempotency.W003"}

    settings.CORS_ALLOW_HEADERS = [*corsheaders.defaults.default_headers, "Idempotency-Key"]
    assert said() == {}


def test_djangos_own_middleware_leaves_replays_alone(
    settings: Any, make_function_door: MakeDoor
) -> None:
    """All of it at once, in the order that Django recommends; and the checks say nothing."""
    door = make_function_door(lambda request: HttpResponse(f"{uuid.uuid4()} " * 100, status=201))
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.MIDDLEWARE = [
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.cache.UpdateCacheMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "testproject.shop.auth.header_authentication",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "django.middleware.common.BrokenLinkEmailsMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]

    first, second, third = (door(Accept_Encoding="gzip") for _ in range(3))

    assert said() == {}
    assert [r.status_code for r in (first, second, third)] == [201] * 3
    assert second["Idempotent-Replayed"] == third["Idempotent-Replayed"] == "true"
    assert first["Content-Encoding"] == second["Content-Encoding"] == "gzip"
    contents = {gzip.decompress(response.content) for response in (first, second, third)}
    assert len(contents) == 1


# Views


def created(request: Any) -> HttpResponse:
    """Answer, at least."""
    return HttpResponse(status=201)


def bare(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate without functools.wraps()."""

    def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs)

    return wrapper


def polite(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate with functools.wraps()."""
    return wraps(view)(bare(view))


def of_class(cls: Any) -> Callable[..., Any]:
    """Make a view that knows a class, and uses another way than its as_view()."""
    return lambda request: cls().post(request)


def unfinished(view: Callable[..., Any], *, is_done: bool = False) -> Callable[..., Any]:
    """Decorate with a mistake that only a call would show."""

    def wrapper(request: Any) -> Any:
        return view(later)

    if is_done:
        later: Any = None
    return wrapper


class Instance:
    """A view that is no function."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return created(request)


def assert_refused(door: Door) -> None:
    """Make sure that a request with a key is refused, as the message has it, and only that."""
    assert door().status_code == 500
    door.key = ""
    assert door().status_code == 201


@method_decorator(idempotent, name="dispatch")
class Marked(View):
    """A class with the decorator."""

    def post(self, request: HttpRequest) -> HttpResponse:
        return created(request)


@method_decorator(polite, name="dispatch")
class BelowMarked(Marked):
    """A class that inherits from it."""


@method_decorator(atomic, name="dispatch")
class AtomicMarked(Marked):
    """A class in a transaction."""


@method_decorator([atomic(using="default")], name="dispatch")
class AtomicOptionsMarked(Marked):
    """The same, with arguments and a list."""


class MarkedMethod(View):
    """A class with the decorator on a method."""

    @method_decorator(idempotent)
    def post(self, request: HttpRequest) -> HttpResponse:
        return created(request)


@method_decorator(idempotent, name="dispatch")
class MarkedTwice(MarkedMethod):
    """A class with the decorator on its dispatch, too."""


class Framework(IdempotencyMixin, APIView):
    """A class of the framework, open to all."""

    authentication_classes = (CallerOfMiddleware,)

    def post(self, request: Any) -> HttpResponse:
        return created(request)


class FrameworkDispatch(Framework):
    """A class of the framework with a dispatch of its own."""

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return super().dispatch(request, *args, **kwargs)


@method_decorator(atomic, name="dispatch")
class FrameworkAtomic(Framework):
    """A class of the framework in a transaction."""


GOOD = {
    "polite": polite(idempotent(created)),
    "bare": bare(idempotent(created)),
    "class": Marked.as_view(),
    "class-below": BelowMarked.as_view(),
    "class-in-bare": bare(Marked.as_view()),
    "method": MarkedMethod.as_view(),
    "framework": Framework.as_view(),
    "atomic-inside": idempotent(atomic(created)),
    "atomic-elsewhere": atomic(using="other")(idempotent(created)),
    "without-door": atomic(created),
    "class-without-door": atomic(View.as_view()),
    "of-class": of_class(Marked),
    "unfinished": unfinished(idempotent(created)),
    "instance": idempotent(Instance()),
    "partial": idempotent(partial(created)),
}
ATOMIC = {
    "function": atomic(idempotent(created)),
    "function-options": polite(atomic(using="default")(polite(idempotent(created)))),
    "in-bare": bare(atomic(idempotent(created))),
    "class": atomic(Marked.as_view()),
    "class-in-bare": bare(atomic(Marked.as_view())),
    "dispatch": AtomicMarked.as_view(),
    "dispatch-options": AtomicOptionsMarked.as_view(),
    "twice": MarkedTwice.as_view(),
    "framework": FrameworkAtomic.as_view(),
    "framework-class": atomic(Framework.as_view()),
    "api-view": atomic(DOORS["drf-function"](created)),
}
HIDDEN = {
    "bare": bare(idempotent(created)),
    "class-in-bare": bare(Marked.as_view()),
    "method": MarkedMethod.as_view(),
    "framework-dispatch": FrameworkDispatch.as_view(),
    "api-view": DOORS["drf-function"](created),
}


@pytest.mark.parametrize("view", [*DOORS.values()], ids=DOORS)
def test_every_door_is_fine(serve: Serve, view: Any) -> None:
    """No false alarm."""
    serve(view(created))

    assert said() == {}


@pytest.mark.parametrize("view", GOOD.values(), ids=GOOD)
def test_decorated_doors_are_fine(serve: Serve, view: Any) -> None:
    """Whatever is around them, as long as it opens no transaction."""
    serve(view)

    assert said() == {}


@pytest.mark.parametrize("view", ATOMIC.values(), ids=ATOMIC)
def test_a_door_inside_a_transaction_is_an_error(serve: Serve, alice: Account, view: Any) -> None:
    """As it says, requests with a key are refused."""
    serve(view)

    assert set(said()) == {"idempotency.E006"}
    assert_refused(Door(view))


@pytest.mark.parametrize("view", HIDDEN.values(), ids=HIDDEN)
def test_a_door_inside_an_atomic_request_is_an_error(
    serve: Serve, alice: Account, monkeypatch: pytest.MonkeyPatch, view: Any
) -> None:
    """Unless the outermost decorator is the one that the hint names."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)  # noqa: FBT003
    serve(view)

    assert "non_atomic_requests(using='default')" in str(said()["idempotency.E006"].hint)
    assert_refused(Door(view))

    serve(non_atomic_requests(using="default")(polite(view)))
    assert said() == {}
    assert [Door(view)().status_code for _ in range(2)] == [201, 201]


# Authorisation


def test_authorisation_inside_of_the_door_is_a_warning(serve: Serve) -> None:
    """Above it, it is asked again."""
    serve(idempotent(login_required(created)))
    assert set(said()) == {"idempotency.W004"}

    serve(login_required(idempotent(created)))
    assert said() == {}


def test_a_refusal_inside_of_the_door_is_stored(
    make_function_door: MakeDoor, settings: Any
) -> None:
    """And the retry is redirected to the login page, though the caller may come in now."""
    settings.LOGIN_URL = "/login/"
    door = make_function_door(user_passes_test(lambda user: user.is_staff)(created))

    assert door().status_code == 302
    User.objects.update(is_staff=True)
    assert [door().status_code, door()["Idempotent-Replayed"]] == [302, "true"]


def test_authorisation_of_a_method_below_the_door_is_a_warning(serve: Serve) -> None:
    """Whichever decorator it is."""

    @method_decorator(idempotent, name="dispatch")
    class Wrong(View):
        @method_decorator(permission_required("shop.add_payment"))
        def post(self, request: HttpRequest) -> HttpResponse:
            return created(request)

    serve(Wrong.as_view())

    assert set(said()) == {"idempotency.W004"}


def test_a_class_that_authorises_inside_of_the_door_is_a_warning(serve: Serve) -> None:
    """Inheriting from the door, it authorises first."""

    @method_decorator(idempotent, name="dispatch")
    class Wrong(LoginRequiredMixin, View):
        def post(self, request: HttpRequest) -> HttpResponse:
            return created(request)

    class Right(LoginRequiredMixin, Marked):
        pass

    serve(Wrong.as_view())
    assert "LoginRequiredMixin inside of" in said()["idempotency.W004"].msg

    serve(Right.as_view())
    assert said() == {}


# Options


def test_a_view_whose_keys_expire_during_a_wait_is_an_error(serve: Serve) -> None:
    """Whatever the view's own wait is: a client may ask for the longest."""
    serve(idempotent(ttl=timedelta(seconds=5))(created))
    assert f"ttl of {__name__}.created is" in said()["idempotency.E004"].msg

    serve(idempotent(ttl=timedelta(seconds=6))(created))
    assert said() == {}


def test_wrong_settings_hide_what_depends_on_them(serve: Serve, settings: Any) -> None:
    """They are reported, and nothing fails."""
    settings.IDEMPOTENCY = {"MAX_WAIT": "long"}
    serve(idempotent(ttl=timedelta(seconds=5))(created))

    assert set(said()) == {"idempotency.E001"}


class ActionViewSet(IdempotencyMixin, ViewSet):
    """Actions with options, which nobody has looked at when the class is defined."""

    authentication_classes = (CallerOfMiddleware,)

    @action(detail=False, methods=["post"], idempotency={"wait": 1})
    def right(self, request: Any) -> HttpResponse:
        return created(request)

    @action(detail=False, methods=["post"], idempotency={"ttl": timedelta(seconds=1)})
    def short(self, request: Any) -> HttpResponse:
        return created(request)


class WrongActionViewSet(ActionViewSet):
    """One of its options does not exist."""

    @action(detail=False, methods=["post"], idempotency={"weight": 1})
    def wrong(self, request: Any) -> HttpResponse:
        return created(request)


class ComputingViewSet(WrongActionViewSet):
    """Only a request tells its options."""

    def get_idempotency_options(self) -> Any:
        raise TypeError


def actions_of(view_set: type[ViewSet]) -> Any:
    """Give the URLs of a view set as what `serve` serves."""
    router = SimpleRouter()
    router.register("", view_set, basename="actions")
    return include(router.urls)


def test_options_of_actions_are_looked_at(serve: Serve, alice: Account) -> None:
    """They would fail with the first request."""
    serve(actions_of(ActionViewSet))
    assert set(said()) == {"idempotency.E004"}

    serve(actions_of(WrongActionViewSet))
    assert set(said()) == {"idempotency.E004", "idempotency.E007"}
    assert "'weight'" in said()["idempotency.E007"].msg
    assert Door(None, path="/work/wrong/")().status_code == 500
    assert Door(None, path="/work/right/")().status_code == 201


def test_computed_options_are_not_judged(serve: Serve) -> None:
    """They may depend on the request."""
    serve(actions_of(ComputingViewSet))

    assert said() == {}


class MixinAlone(IdempotencyMixin, View):
    """No class of the framework."""

    def post(self, request: Any) -> HttpResponse:
        return created(request)


@method_decorator(idempotent, name="dispatch")
class DecoratedFramework(APIView):
    """A class of the framework with the wrong door."""

    def post(self, request: Any) -> HttpResponse:
        return created(request)


@pytest.mark.parametrize(
    ("cls", "mend"), [(MixinAlone, "needs @idempotent"), (DecoratedFramework, "needs Idempotency")]
)
def test_the_wrong_door_for_a_class_is_an_error(
    serve: Serve, alice: Account, cls: Any, mend: str
) -> None:
    """It would fail with the first request."""
    serve(cls.as_view())

    assert mend in said()["idempotency.E007"].msg
    assert Door(None)().status_code == 500


# Addresses


@pytest.mark.parametrize(
    ("urls", "ids"),
    [
        (include(([path("", include("idempotency.urls"))], "api")), {"idempotency.W005"}),
        (include("idempotency.urls", namespace="ours"), set()),
    ],
)
def test_a_policy_page_that_errors_cannot_find_is_a_warning(
    settings: Any, urls: Any, ids: set[str]
) -> None:
    """Neither inside of a namespace nor with arguments; anywhere else they do."""
    urlconf = types.ModuleType("urlconf_of_one_test")
    urlconf.urlpatterns = [path("there/", urls)]  # type: ignore[attr-defined]
    settings.ROOT_URLCONF = urlconf

    assert set(said()) == ids


@pytest.mark.parametrize("urlconf", [None, "testproject.urls"])
def test_a_project_may_have_no_urls(settings: Any, urlconf: str | None) -> None:
    """Nothing to say then."""
    settings.ROOT_URLCONF = urlconf

    assert said() == {}


# The server


Bound = Callable[..., dict[str, CheckMessage]]


@pytest.fixture
def bound(committed: None) -> Iterator[Bound]:
    """Change settings of the tests' role, connect anew, and run the checks of the server."""

    def alter_role(**settings: str) -> None:
        with session(options="-c default_transaction_read_only=off") as mine:
            database = mine.info.dbname
            for name, value in settings.items():
                mine.execute(
                    f"ALTER ROLE CURRENT_USER IN DATABASE \"{database}\" SET {name} = '{value}'"
                )
        hang_up()

    def check(**settings: str) -> dict[str, CheckMessage]:
        alter_role(**settings)
        return said(databases=["default"])

    yield check
    alter_role(
        default_transaction_read_only="off",
        statement_timeout="0",
        idle_in_transaction_session_timeout="60s",
        client_connection_check_interval="1s",
    )


def test_a_server_that_takes_no_writes_is_an_error(bound: Bound) -> None:
    """Every request with a key would be answered 503."""
    assert set(bound(default_transaction_read_only="on")) == {"idempotency.E008"}


def test_a_hanging_worker_without_bound_is_a_warning(bound: Bound) -> None:
    """The hint is a statement that mends it."""
    message = bound(idle_in_transaction_session_timeout="0")["idempotency.W006"]
    statement = str(message.hint).partition("two statements: ")[2].partition(";")[0]

    with connection.cursor() as cursor:
        cursor.execute(statement)

    assert bound() == {}


def test_a_statement_of_a_dead_worker_without_bound_is_a_warning(bound: Bound) -> None:
    """The hint is a statement that mends it; a time-out for all statements does, too."""
    message = bound(client_connection_check_interval="0")["idempotency.W007"]
    statement = str(message.hint).partition("is there: ")[2].partition(";")[0]

    assert bound(statement_timeout="30s") == {}
    assert set(bound(statement_timeout="0")) == {"idempotency.W007"}

    with connection.cursor() as cursor:
        cursor.execute(statement)
    assert bound() == {}


def test_the_server_is_asked_only_on_demand(bound: Bound) -> None:
    """With --database, as migrate does; other checks need no connection."""
    bound(idle_in_transaction_session_timeout="0")

    connection.close()

    assert said() == {}
    assert check_server(databases=["other"]) == []
    assert connection.connection is None
