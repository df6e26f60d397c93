"""Options: what one view asks of its door, and what follows from that for a request."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from . import bodies, claims, conf, forms, http, tenants
from .exceptions import MissingKey
from .fingerprints import BodyForm, canonical_body, fingerprints

ExceptionHandler = Callable[[HttpRequest, Exception], HttpResponseBase | None]
"""Gives the answer for an exception, or None to let it pass."""

NOT_KEPT = frozenset({400, 401, 403, 405, 406, 408, 413, 415, 425, 429})
"""Answers below 500 that are not kept: the request's fault or the moment's, so that a retry may do
better. What the view wrote is rolled back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one view asks of its door: the arguments of `idempotent`, which explains them."""

    required: bool = False
    methods: Collection[str] | None = None
    ttl: timedelta | None = None
    scope: conf.Resolver | None = None
    tenant: conf.Resolver | None = None
    fingerprint: BodyForm | None = None
    wait: float | None = None
    form: bool = False
    store: Callable[[Any], bool] | None = None
    exception_handler: ExceptionHandler | None = None

    def __post_init__(self) -> None:
        for option, setting in {"methods": "METHODS", "ttl": "TTL", "wait": "MAX_WAIT"}.items():
            value = getattr(self, option)
            if value is not None:
                try:
                    conf.check(setting, value)
                except ValueError as error:
                    raise ValueError(f"{option}= {error}") from None
        for option in ("scope", "tenant", "fingerprint", "store", "exception_handler"):
            value = getattr(self, option)
            if value is not None and (not callable(value) or iscoroutinefunction(value)):
                raise TypeError(f"{option}= must be a sync callable, not {value!r}.")

    def honour(self, method: str | None) -> bool:
        """Tell whether requests of an HTTP method may have a key."""
        return method in (conf.settings.METHODS if self.methods is None else self.methods)

    def may_cover(self, request: HttpRequest) -> bool:
        """Tell as much of `cover` as can be told before the body is read."""
        if not self.honour(request.method):
            return False
        return self.required or http.has_key(request) or (self.form and forms.is_form(request))

    def cover(self, request: HttpRequest) -> bool:
        """Tell whether a request is the door's business: others run as if undecorated."""
        if not self.may_cover(request):
            return False
        # A form that was cut may have lost its key. It is refused, as it is not what was sent.
        return (
            self.required or http.has_key(request, form=self.form) or bodies.is_incomplete(request)
        )

    def canonical_body(self, request: HttpRequest) -> bytes:
        """Give what stands for the body where the view has no ``fingerprint`` of its own."""
        return canonical_body(request, without=forms.BESIDE_THE_POINT if self.form else ())

    def life(self) -> timedelta:
        """Give how long keys and answers live."""
        return conf.settings.TTL if self.ttl is None else self.ttl

    def keep(self, response: HttpResponseBase) -> bool:
        """Tell whether a response is kept, and what the view wrote with it."""
        if self.store is not None:
            return self.store(response)
        return response.status_code < 500 and response.status_code not in NOT_KEPT

    def seconds_to_wait(self, request: HttpRequest) -> float:
        """Give how long to wait for the first request: the client's wish, else the view's.

        Where neither has one, the post of a form waits: whoever clicks twice sees the second
        answer only, and a person can do less with a 409 than a program.
        """
        wish: float | None = http.preferred_wait(request)
        if wish is None:
            wish = self.wait
        if wish is None:
            wish = conf.settings.MAX_WAIT if self.form and forms.is_form(request) else 0
        return min(wish, conf.settings.MAX_WAIT)

    def applied(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Say on our own responses, never on a view's, how a wish to wait was met (RFC 7240, 3)."""
        if http.preferred_wait(request) is not None:
            response["Preference-Applied"] = f"wait={int(self.seconds_to_wait(request))}"
        return response

    def claim(self, request: HttpRequest, operation: str) -> claims.Claim:
        """Find out what the request lays claim to.

        Args:
            operation: What `http.operation` gave for it.

        Raises:
            MissingKey, InvalidKey, UnscopedCaller: It cannot be treated idempotently.
            IncompleteBody, LengthRequired: It has not arrived as it was sent.
        """
        key = http.idempotency_key(request, form=self.form)
        if key is None:
            bodies.refuse_incomplete(request)
            in_form = f"A form sends it in the field {forms.KEY_FIELD}."
            raise MissingKey(*[in_form] * self.form)
        scope = tenants.scope(request, self.scope, self.tenant)
        prints = fingerprints(request, self.fingerprint or self.canonical_body)
        bodies.refuse_incomplete(request)
        return claims.Claim(
            scope=scope.name,
            key=key,
            fingerprints=prints,
            operation=operation,
            ttl=self.life(),
            most=conf.settings.MAX_KEYS_PER_SCOPE,
            users=scope.users,
        )
