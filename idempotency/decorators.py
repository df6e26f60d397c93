"""The front door: ``@idempotent`` makes a Django view safe to retry.

::

    @login_required
    @idempotent
    def create_payment(request):
        ...

Whatever authenticates, authorises or throttles goes above it: a retry passes that again, and
skips only the view. A class is decorated with ``method_decorator(idempotent, name="dispatch")``.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from typing import Any, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db.transaction import atomic
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import conf, database
from .async_views import AsyncResponder, enclosed
from .fingerprints import BodyForm
from .flow import Responder, answer, is_atomic_request
from .options import ExceptionHandler, Options

View = TypeVar("View", bound=Callable[..., Any])


@overload
def idempotent(view: View, /) -> View: ...
@overload
def idempotent(
    *,
    required: bool = False,
    methods: Collection[str] | None = None,
    ttl: timedelta | None = None,
    scope: conf.Resolver | None = None,
    tenant: conf.Resolver | None = None,
    fingerprint: BodyForm | None = None,
    wait: float | None = None,
    form: bool = False,
    store: Callable[[Any], bool] | None = None,
    exception_handler: ExceptionHandler | None = None,
) -> Callable[[View], View]: ...
def idempotent(view: View | None = None, /, **options: Any) -> Any:
    """Run a view once per idempotency key, in one transaction with its stored answer.

    Can be used bare, as ``@idempotent``, or with arguments, as ``@idempotent(required=True)``; on
    functions, sync and async, and through ``method_decorator`` on the ``dispatch`` of a class.

    Args:
        required: Refuse requests without a key, with 400. Else they run as if undecorated.
        methods: HTTP methods that honour a key, in place of the setting ``METHODS``.
        ttl: How long keys and answers live, in place of the setting ``TTL``.
        scope: Resolver of who is calling, in place of the authenticated user. Needed where
            anonymous callers may use keys. Start its answer with a kind, as in ``"partner:17"``.
        tenant: Resolver of the tenant that goes in front of the scope, in place of ``TENANT``.
        fingerprint: Gives what stands for the body when a request is compared with the one that
            its key was first sent with; in place of `fingerprints.canonical_body`. Method, path,
            query and media type count all the same.
        wait: Seconds a concurrent request waits for the first one, at most ``MAX_WAIT``, before
            it is answered 409. A client's ``Prefer: wait=N`` goes before it. By default the post
            of a form that ``form`` allows waits ``MAX_WAIT``, and other requests do not wait.
        form: Look for the key in the field of a posted form, too: ``{% idempotency_key %}`` puts
            it there. Without this the field means nothing.
        store: Predicate on the response: whether to commit what the view wrote and keep the
            answer, or to roll back and let a retry run; in place of `options.NOT_KEPT` and 5xx.
        exception_handler: Turns an exception of the view into its answer, or gives None to let
            it pass. It is asked after the rollback, and for requests without a key, too.

    Raises:
        TypeError, ValueError: The view or an argument cannot be right.
    """
    wanted = Options(**options)
    return partial(_decorate, options=wanted) if view is None else _decorate(view, wanted)


@dataclass(frozen=True, slots=True)
class _Door:
    """One decorated view's way in."""

    options: Options
    alias: str
    """The keys' database."""
    was_atomic: bool
    """Whether ``ATOMIC_REQUESTS``, if set for it, would wrap the view had we not taken it out."""

    def serve(self, request: HttpRequest, respond: Responder) -> HttpResponseBase:
        if self.options.cover(request):
            return answer(request, respond, self.options)
        request.idempotency = None  # type: ignore[attr-defined]
        try:
            return atomic(self.alias)(respond)(request) if self._atomic() else respond(request)
        except Exception as error:
            return self._handled(request, error)

    async def aserve(self, request: HttpRequest, respond: AsyncResponder) -> HttpResponseBase:
        if await self._acover(request) or self._atomic():
            return await sync_to_async(self.serve)(request, enclosed(respond))
        return await self._uncovered(request, respond)

    def serve_api_view(self, request: Any, respond: Responder) -> HttpResponseBase:
        """Answer a request of Django REST framework, whose dispatch calls the view."""
        from . import drf  # noqa: PLC0415  # only where the framework is installed

        if self.options.may_cover(request._request):
            drf.parse(request)
            if self.options.cover(request._request):
                return drf.answer_function(request, respond, self.options)
        request._request.idempotency = None
        try:
            return respond(request)
        except Exception as error:
            return self._handled(request, error)

    async def aserve_api_view(self, request: Any, respond: AsyncResponder) -> HttpResponseBase:
        """Do the same for ``adrf``, whose dispatch awaits the view."""
        if await self._acover(request._request):
            return await sync_to_async(self.serve_api_view)(request, enclosed(respond))
        return await self._uncovered(request, respond)

    async def _uncovered(self, request: Any, respond: AsyncResponder) -> HttpResponseBase:
        getattr(request, "_request", request).idempotency = None
        try:
            return await respond(request)
        except Exception as error:
            return await sync_to_async(self._handled)(request, error)

    async def _acover(self, request: HttpRequest) -> bool:
        covered = self.options.may_cover(request)
        if covered and self.options.form:
            covered = await sync_to_async(self.options.cover)(request)  # it may read a large body
        return covered

    def _atomic(self) -> bool:
        return self.was_atomic and is_atomic_request()

    def _handled(self, request: HttpRequest, error: Exception) -> HttpResponseBase:
        handler = self.options.exception_handler
        response = handler(request, error) if handler else None
        if response is None:
            raise error
        return response


def _decorate(view: View, options: Options) -> View:
    _refuse_wrong_use(view)
    alias = database.alias()
    non_atomic: set[str] = getattr(view, "_non_atomic_requests", set())
    door = _Door(options, alias, was_atomic=alias not in non_atomic)

    @wraps(view)
    async def async_wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:

        async def respond(request: HttpRequest) -> HttpResponseBase:
            return cast("HttpResponseBase", await view(request, *args, **kwargs))

        if _is_framework_request(request):
            return await door.aserve_api_view(request, respond)
        _refuse_other_than_request(request)
        return await door.aserve(request, respond)

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:

        def respond(request: HttpRequest) -> HttpResponseBase:
            return cast("HttpResponseBase", view(request, *args, **kwargs))

        if _is_framework_request(request):
            return door.serve_api_view(request, respond)
        _refuse_other_than_request(request)
        return door.serve(request, respond)

    decorated: Any = async_wrapper if _is_async(view) else wrapper
    # As transaction.non_atomic_requests() does, but leaving the undecorated view as it was.
    decorated._non_atomic_requests = {*non_atomic, alias}
    decorated.idempotency_options = options
    return cast("View", decorated)


def _is_async(view: Any) -> bool:
    # An async class's dispatch is a plain function that returns a coroutine.
    return iscoroutinefunction(view) or getattr(_instance(view), "view_is_async", False)


def _instance(view: Any) -> Any:
    """Find the view of a class whose method method_decorator has bound with a partial."""
    while view is not None:
        instance = getattr(getattr(view, "func", None), "__self__", None)
        if instance is not None:
            return instance
        view = getattr(view, "__wrapped__", None)
    return None


def _refuse_wrong_use(view: Any) -> None:
    """Fail where the view is defined, with the sentence that says the mend."""
    name = getattr(view, "__qualname__", repr(view))
    if isinstance(view, type):
        raise TypeError(
            f"@idempotent decorates views, and {name} is a class. Write "
            '@method_decorator(idempotent, name="dispatch") above it.'
        )
    if not callable(view):
        raise TypeError(f"@idempotent decorates views, and {name} cannot be called.")
    if hasattr(view, "cls") or (
        getattr(view, "__name__", "") == "dispatch"
        and hasattr(_instance(view), "initialize_request")
    ):
        raise TypeError(
            f"{name} is a view of Django REST framework, which authenticates inside, where "
            "@idempotent cannot look. Put @idempotent under @api_view, next to the function; "
            "or idempotency.drf.IdempotencyMixin first among the bases of a class."
        )
    if hasattr(view, "idempotency_options"):
        raise TypeError(f"{name} is idempotent already. Decorate it once.")
    code = getattr(view, "__code__", None)
    if code is not None and code.co_varnames[:1] == ("self",):
        raise TypeError(
            f"{name} is a method. Write @method_decorator(idempotent) above it, or better "
            '@method_decorator(idempotent, name="dispatch") above its class.'
        )


def _is_framework_request(request: Any) -> bool:
    return isinstance(getattr(request, "_request", None), HttpRequest)


def _refuse_other_than_request(request: Any) -> None:
    if not isinstance(request, HttpRequest):
        raise TypeError(
            "The first argument of an idempotent view must be Django's HttpRequest, not "
            f"{type(request).__qualname__}."
        )
