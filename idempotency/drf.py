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
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, cast

from django.db.transaction import atomic
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.views import APIView

from . import claims, http
from .flow import Options, Responder, answer, is_atomic_request
from .views import key_status


class KeyStatusView(APIView):
    """The status of one of the caller's keys, to callers the framework authenticates."""

    def get(self, request: Request, key: str) -> HttpResponseBase:
        """See `idempotency.views.key_status`."""
        return key_status(request._request, key)


class IdempotencyMixin:
    """Goes before ``APIView``, or a generic view or view set, in the list of base classes."""

    idempotency: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments of ``@idempotent`` for this view; ``@action(..., idempotency={...})`` sets those of
    an action."""

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

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer a request as ``APIView.dispatch`` does, with the flow around the handler."""
        view: Any = self
        if actions := getattr(view, "action_map", None):
            view.action = actions.get((request.method or "").lower())
        options = self.get_idempotency_options()
        if not options.cover(request) or not hasattr(view, (request.method or "").lower()):
            request.idempotency = None  # type: ignore[attr-defined]
            dispatch: Any = super().dispatch  # type: ignore[misc]
            if is_atomic_request():
                dispatch = atomic(claims.database())(dispatch)
            return cast("HttpResponseBase", dispatch(request, *args, **kwargs))

        view.args, view.kwargs = args, kwargs
        view.request = view.initialize_request(request, *args, **kwargs)
        view.headers = view.default_response_headers
        try:
            view.initial(view.request, *args, **kwargs)
            _parse(view.request)
        except Exception as error:
            response = view.response = _finalized(view, view.handle_exception(error))
            return response

        def respond(_request: HttpRequest) -> HttpResponseBase:
            handler = getattr(view, view.request.method.lower())
            return _finalized(view, handler(view.request, *args, **kwargs))

        scope = options.scope or self.get_idempotency_scope
        wanted = _with_handler(view, replace(options, scope=scope))
        response = view.response = answer(request, respond, wanted)
        return response

    # as_view() copies this to the view, which Django then leaves out of ATOMIC_REQUESTS.
    dispatch._non_atomic_requests = {claims.database()}  # type: ignore[attr-defined]  # noqa: RUF012


def answer_function(request: Request, respond: Responder, options: Options) -> HttpResponseBase:
    """Answer a covered request to a function with ``@idempotent`` under ``@api_view``."""
    view = request.parser_context["view"]
    _parse(request)
    return answer(
        request._request,
        lambda _request: _finalized(view, respond(request)),
        _with_handler(view, options),
    )


def _refuse_skipped_dispatch(cls: type) -> None:
    """Refuse a class with a ``dispatch`` between the mixin's and the framework's.

    The mixin's stands in place of the framework's for requests with a key, and does not call it.
    """
    bases = cls.__mro__
    if APIView not in bases:
        return
    for base in bases[bases.index(IdempotencyMixin) + 1 : bases.index(APIView)]:
        if "dispatch" in vars(base):
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
    """Let the framework's exception handling answer what the handler raises."""
    ours = options.exception_handler

    def handle(request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        response = ours(request, error) if ours else None
        if response is None:
            try:
                response = view.handle_exception(error)
            except Exception as unhandled:
                if unhandled is error:
                    return None
                raise
        return _finalized(view, response)

    return replace(options, exception_handler=handle)


def _finalized(view: Any, response: Any) -> HttpResponseBase:
    response = view.finalize_response(view.request, response, *view.args, **view.kwargs)
    return cast("HttpResponseBase", response)


def _parse(request: Request) -> None:
    """Parse the request, and keep its body for the fingerprint."""
    django_request = request._request
    if django_request.method != "POST" or django_request.content_type != "multipart/form-data":
        django_request.body  # noqa: B018  # reading it keeps it
    try:
        request.data  # noqa: B018  # reading it parses it
    except (LookupError, UnicodeError) as error:  # of a charset that no text has
        raise ParseError from error
