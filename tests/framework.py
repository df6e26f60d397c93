"""The framework's kinds of door, which `conftest` adds to Django's where it is installed."""

from collections.abc import Callable
from typing import Any

from adrf.decorators import api_view as async_api_view
from adrf.views import APIView as AsyncAPIView
from adrf.viewsets import ViewSet as AsyncViewSet
from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import api_view
from rest_framework.parsers import BaseParser, FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from idempotency.decorators import idempotent
from idempotency.drf import IdempotencyMixin

Work = Callable[[HttpRequest], HttpResponseBase]


class CallerOfMiddleware(BaseAuthentication):
    """Takes the caller that the shop's middleware knows."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        user = request._request.user
        return (user, None) if user.is_authenticated else None


class AnyParser(BaseParser):
    """Takes any other body as bytes, as Django does."""

    media_type = "*/*"

    def parse(self, stream: Any, *args: Any, **kwargs: Any) -> Any:
        return stream.read()


FRAMEWORK = {
    "authentication_classes": [CallerOfMiddleware],
    "parser_classes": [JSONParser, MultiPartParser, FormParser, AnyParser],
}


def _framework(work: Work, options: dict[str, Any]) -> dict[str, Any]:
    """Give the body of a framework class, whose exception handler asks the test's first."""
    handler = options.pop("exception_handler", None)

    def handle(error: Exception, context: dict[str, Any]) -> Any:
        response = handler(context["request"], error) if handler else None
        fallback: Any = api_settings.EXCEPTION_HANDLER
        return response or fallback(error, context)

    def run(self: Any, request: Request) -> HttpResponseBase:
        return work(request)

    get_handler = lambda self: handle  # noqa: E731
    return FRAMEWORK | {"run": run, "get_exception_handler": get_handler, "idempotency": options}


def _framework_class(work: Work, **options: Any) -> Any:
    body = _framework(work, options)
    body |= dict.fromkeys(("post", "get", "patch", "put"), body["run"])
    view: Any = type("WorkView", (IdempotencyMixin, APIView), body)
    return view.as_view()


def _framework_viewset(work: Work, **options: Any) -> Any:
    body = _framework(work, options)
    view: Any = type("WorkViewSet", (IdempotencyMixin, ViewSet), body)
    return view.as_view(dict.fromkeys(("post", "get", "patch", "put"), "run"))


def _framework_function(work: Work, **options: Any) -> Any:
    @idempotent(**options)
    def view(request: HttpRequest) -> HttpResponseBase:
        return work(request)

    for name, value in FRAMEWORK.items():
        setattr(view, name, value)
    return api_view(["POST", "GET", "PATCH", "PUT"])(view)


def _async_framework_class(work: Work, **options: Any) -> Any:
    async def run(self: Any, request: Request) -> HttpResponseBase:
        return await sync_to_async(work)(request)

    body = _framework(work, options)
    body |= dict.fromkeys(("post", "get", "patch", "put"), run)
    view: Any = type("WorkView", (IdempotencyMixin, AsyncAPIView), body)
    return view.as_view()


def _async_framework_viewset(work: Work, **options: Any) -> Any:
    async def run(self: Any, request: Request) -> HttpResponseBase:
        return await sync_to_async(work)(request)

    body = _framework(work, options) | {"run": run}
    view: Any = type("WorkViewSet", (IdempotencyMixin, AsyncViewSet), body)
    return view.as_view(dict.fromkeys(("post", "get", "patch", "put"), "run"))


def _async_framework_function(work: Work, **options: Any) -> Any:
    @idempotent(**options)
    async def view(request: HttpRequest) -> HttpResponseBase:
        return await sync_to_async(work)(request)

    for name, value in FRAMEWORK.items():
        setattr(view, name, value)
    return async_api_view(["POST", "GET", "PATCH", "PUT"])(view)


FRAMEWORK_DOORS = {
    "drf-function": _framework_function,
    "drf-class": _framework_class,
    "drf-viewset": _framework_viewset,
    "adrf-function": _async_framework_function,
    "adrf-class": _async_framework_class,
    "adrf-viewset": _async_framework_viewset,
}
