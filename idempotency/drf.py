"""The DRF door: ``IdempotencyMixin`` makes views of Django REST framework safe to retry.

::

    class PaymentViewSet(IdempotencyMixin, ModelViewSet):
        idempotency = {"required": True}

        @action(detail=True, methods=["post"], idempotency={"wait": 2})
        def refund(self, request, pk): ...

Content negotiation, authentication, permissions, throttling and parsing come before the claim, so
that a retry passes them again. The handler, the rendering of its response and the stored answer
are one transaction. What the handler raises rolls that back before the framework answers it.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db import connections
from django.db.transaction import atomic
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ParseError
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from . import database, http
from .async_views import enclosed
from .browsable import KeyFieldRenderer
from .exceptions import AfterCommitError
from .flow import Responder, answer, is_atomic_request
from .options import Options
from .views import key_status


class KeyStatusView(APIView):
    """The status of one of the caller's keys, to callers the framework authenticates."""

    def get(self, request: Request, key: str) -> HttpResponseBase:
        """Tell how the request with one of the caller's keys stands.

        Unknown, expired and other people's keys are 404 alike.
        """
        return key_status(request._request, key)


class IdempotencyMixin:
    """Goes before ``APIView``, or a generic view or view set, in the list of base classes."""

    idempotency: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments of ``@idempotent`` for this view; ``@action(..., idempotency={...})`` sets those of
    an action."""

    idempotency_options: Options
    """What `get_idempotency_options` gave for the request that is being answered."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = cls.__mro__
        if APIView in bases and bases.index(APIView) < bases.index(IdempotencyMixin):
            raise TypeError(
                f"{cls.__name__} would never ask IdempotencyMixin. Put it first: "
                f"class {cls.__name__}(IdempotencyMixin, ...)."
            )
        _refuse_skipped_dispatch(cls)
        options_of(cls.idempotency)

    def get_idempotency_options(self) -> Options:
        """Give what this request's method or action asks of the door. Override to compute it."""
        return options_of(self.idempotency)

    def get_idempotency_scope(self, request: HttpRequest) -> str | None:
        """Tell whose key it is; None where nobody can. Override to scope other than by user."""
        return http.user_scope(request)

    def get_idempotency_fingerprint(self, request: HttpRequest) -> bytes | str:
        """Give what stands for the body when requests are compared. Override to leave parts out."""
        return self.idempotency_options.canonical_body(request)

    def get_renderers(self) -> list[Any]:
        """Give the browsable API a field for the key, where the project uses it as it comes."""
        renderers = super().get_renderers()  # type: ignore[misc]
        return [KeyFieldRenderer() if type(it) is BrowsableAPIRenderer else it for it in renderers]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Answer a request as ``APIView.dispatch`` does, with the flow around the handler.

        Of a view that is async (of ``adrf``) it gives, as that does, an awaitable.
        """
        view: Any = self
        method = (request.method or "").lower()
        if actions := getattr(view, "action_map", None):
            view.action = actions.get(method)
        options = self.idempotency_options = self.get_idempotency_options()
        is_there = method in view.http_method_names and hasattr(view, method)
        is_ours = is_there and options.may_cover(request)
        if view.view_is_async and (is_ours or is_atomic_request()):
            _await_in_sync(view, method)
            return sync_to_async(IdempotencyMixin.dispatch)(view, request, *args, **kwargs)
        if not is_ours:
            request.idempotency = None  # type: ignore[attr-defined]
            dispatch: Any = super().dispatch  # type: ignore[misc]
            if is_atomic_request():
                dispatch = atomic(database.alias())(dispatch)
            return dispatch(request, *args, **kwargs)
        options = replace(
            options,
            scope=options.scope or self.get_idempotency_scope,
            fingerprint=options.fingerprint or self.get_idempotency_fingerprint,
        )
        view.args, view.kwargs = args, kwargs
        view.response = _answer_method(view, request, options)
        return view.response

    # as_view() copies this to the view, which Django then leaves out of ATOMIC_REQUESTS.
    dispatch._non_atomic_requests = {database.alias()}  # type: ignore[attr-defined]  # noqa: RUF012


def _answer_method(view: Any, request: HttpRequest, options: Options) -> HttpResponseBase:
    """Answer a covered request to a method or action of a class."""
    view.request = view.initialize_request(request, *view.args, **view.kwargs)
    view.headers = view.default_response_headers
    options = _with_handler(view, options)

    def respond(_request: HttpRequest) -> HttpResponseBase:
        return _finalized(view, _handle(view))

    try:
        view.initial(view.request, *view.args, **view.kwargs)
        parse(view.request)
        if not options.cover(request):  # it is a form, and has no key
            request.idempotency = None  # type: ignore[attr-defined]
            return _answer_uncovered(view)
        return answer(request, respond, options)
    except Exception as error:
        return _finalized(view, _answer_error(view, error))


def answer_function(request: Request, respond: Responder, options: Options) -> HttpResponseBase:
    """Answer a covered request, parsed already, to a function under ``@api_view``."""
    view = request.parser_context["view"]
    return answer(
        request._request,
        lambda _request: _finalized(view, respond(request)),
        _with_handler(view, options),
    )


def _await_in_sync(view: Any, method: str) -> None:
    """Turn an async view, for this one request, into a sync one that awaits its handler."""
    view.view_is_async = False
    handler = getattr(view, method, None)
    if not iscoroutinefunction(handler):
        return

    def awaiting_handler(request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return enclosed(lambda request: handler(request, *args, **kwargs))(request)

    setattr(view, method, awaiting_handler)


def _answer_uncovered(view: Any) -> HttpResponseBase:
    """Do what ``APIView.dispatch`` does after the request is let in and parsed."""
    with atomic(database.alias()) if is_atomic_request() else nullcontext():
        try:
            response = _handle(view)
        except Exception as error:
            response = view.handle_exception(error)
        return _finalized(view, response)


def _handle(view: Any) -> Any:
    """Call the method of the class that the request is for."""
    handler = getattr(view, view.request.method.lower())
    return handler(view.request, *view.args, **view.kwargs)


def _refuse_skipped_dispatch(cls: type) -> None:
    """Refuse a class with a ``dispatch`` between the mixin's and the framework's.

    The mixin's stands in place of the framework's for requests with a key, and does not call it.
    """
    bases = cls.__mro__
    if APIView not in bases:
        return
    for base in bases[bases.index(IdempotencyMixin) + 1 : bases.index(APIView)]:
        # What adrf's own does around its handler, the mixin's does, too.
        if "dispatch" in vars(base) and not base.__module__.startswith("adrf."):
            raise TypeError(
                f"{base.__name__}.dispatch would be skipped by requests with a key to "
                f"{cls.__name__}. Put it before IdempotencyMixin in the bases; out of a class of "
                "the framework take it into a class of its own, which calls super().dispatch()."
            )


def options_of(values: Mapping[str, Any]) -> Options:
    """Make the options of a door of what a class or an action gives as ``idempotency``.

    Raises:
        TypeError, ValueError: One of them cannot be right.
    """
    if "exception_handler" in values:
        raise TypeError(
            "idempotency takes no exception_handler: the EXCEPTION_HANDLER of Django REST "
            "framework, or the view's get_exception_handler(), is asked."
        )
    return Options(**values)


def _with_handler(view: Any, options: Options) -> Options:
    """Let the framework's exception handling answer what the handler raises, asking it once."""
    _ask_once(view)
    ours = options.exception_handler

    def handle(request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        response = ours(request, error) if ours else None
        if response is None:
            try:
                response = _answer_error(view, error)
            except Exception as unhandled:
                if unhandled is error:
                    return None
                raise
        return _finalized(view, response)

    return replace(options, exception_handler=handle)


def _answer_error(view: Any, error: Exception) -> Any:
    """Let the framework answer for an error, outside of any block of ours.

    It marks for rollback what ``ATOMIC_REQUESTS`` has opened. Here that has been ended; what is
    still open can only be a TestCase's.
    """
    connection = connections[database.alias()]
    is_marked = connection.needs_rollback
    try:
        return view.handle_exception(error)
    finally:
        connection.needs_rollback = is_marked


def _ask_once(view: Any) -> None:
    """Let what the view's exception handling has let pass pass dispatch, too, without asking."""
    ask = view.handle_exception
    passed: Exception | None = None

    def handle_exception(error: Exception) -> Any:
        nonlocal passed
        if error is passed or isinstance(error, AfterCommitError):
            raise error
        try:
            return ask(error)
        except Exception as unhandled:
            passed = unhandled
            raise

    view.handle_exception = handle_exception


def _finalized(view: Any, response: Any) -> HttpResponseBase:
    response = view.finalize_response(view.request, response, *view.args, **view.kwargs)
    return cast("HttpResponseBase", response)


def parse(request: Request) -> None:
    """Parse the request, and keep its body for the fingerprint."""
    django_request = request._request
    if django_request.method != "POST" or django_request.content_type != "multipart/form-data":
        django_request.body  # noqa: B018  # reading it keeps it
    try:
        request.data  # noqa: B018  # reading it parses it
    # Of a charset that no text has; or JSON nested deeper than the parser goes.
    except (LookupError, UnicodeError, RecursionError) as error:
        raise ParseError from error
