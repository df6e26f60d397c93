"""Who is calling the API: HTTP Basic with a password, or a bearer token.

The pages have sessions. The API takes no session for it: its views are free of CSRF tokens, and a
page of somebody else's must not be able to use them with our customer's cookie.
"""

import base64
import binascii
from collections.abc import Callable
from functools import wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth import authenticate
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware
from django.utils.functional import SimpleLazyObject

from .models import Account
from .payments import problem


@sync_and_async_middleware
def header_authentication(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Middleware that sets ``request.user``, found when somebody first looks at it.

    It goes behind Django's own, whose user stands where there is no ``Authorization`` header.
    """

    def identify(request: HttpRequest) -> None:
        if _has_credentials(request):
            request.user = SimpleLazyObject(lambda: _user(request))  # type: ignore[assignment]
            request.auser = sync_to_async(lambda: _user(request))

    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> Any:
            identify(request)
            return await get_response(request)

        return async_middleware

    def middleware(request: HttpRequest) -> Any:
        identify(request)
        return get_response(request)

    return middleware


def authenticated(view: Callable[..., Any]) -> Callable[..., Any]:
    """Let only known callers through to a view, sync or async; others get 401."""
    if iscoroutinefunction(view):

        @wraps(view)
        async def async_wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            known = await sync_to_async(_is_known)(request)
            return await view(request, *args, **kwargs) if known else _unauthorized()

        return async_wrapper

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs) if _is_known(request) else _unauthorized()

    return wrapper


def _has_credentials(request: HttpRequest) -> bool:
    return "Authorization" in request.headers


def _is_known(request: HttpRequest) -> bool:
    return _has_credentials(request) and request.user.is_authenticated


def _user(request: HttpRequest) -> User | AnonymousUser:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        accounts = Account.objects.filter(token=_printable(credentials))
        account = accounts.select_related("user").first()
        return account.user if account and account.user.is_active else AnonymousUser()
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(credentials).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return AnonymousUser()
        user = authenticate(request, username=_printable(name), password=password)
        return user if isinstance(user, User) else AnonymousUser()
    return AnonymousUser()


def _printable(text: str) -> str:
    """Give text that the database can be asked for: it takes no NUL."""
    return text if text.isprintable() else ""


def _unauthorized() -> HttpResponse:
    response = problem(401, "Send a bearer token, or a name and password.")
    response["WWW-Authenticate"] = 'Basic realm="shop", Bearer'
    return response
