"""The flow of every door: what a view asks of it, and how a covered request is answered.

`answer` is the nine steps of the package's docstring, top to bottom.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from asgiref.sync import iscoroutinefunction
from django.core.handlers.exception import response_for_exception
from django.db import connections
from django.db.transaction import TransactionManagementError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from . import claims, conf, forms, http
from .exceptions import IdempotencyError, MissingKey, RequestInProgress, TransactionConflict
from .fingerprints import BodyForm, canonical_body, fingerprints
from .signals import Outcome, Report, reporting

Responder = Callable[[HttpRequest], HttpResponseBase]
"""A view whose other arguments are filled in already."""

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
        return self.required or http.has_key(request, form=self.form)

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

    def claim(self, request: HttpRequest) -> claims.Claim:
        """Find out what the request lays claim to.

        Raises:
            MissingKey, InvalidKey, UnscopedCaller: It cannot be treated idempotently.
        """
        key = http.idempotency_key(request, form=self.form)
        if key is None and self.form:
            raise MissingKey(f"A form sends it in the field {forms.KEY_FIELD}.")
        if key is None:
            raise MissingKey
        return claims.Claim(
            scope=http.scope(request, self.scope, self.tenant or conf.tenant()),
            key=key,
            fingerprints=fingerprints(request, self.fingerprint or self.canonical_body),
            operation=http.operation(request),
            ttl=self.life(),
        )


def answer(request: HttpRequest, view: Responder, options: Options) -> HttpResponseBase:
    """Answer a covered request: with its stored answer, with the view's, or with a problem.

    This is the flow of every door.
    """
    with reporting(request, http.operation(request)) as report:
        try:
            response = _replay_or_run(request, view, options, report)
        except IdempotencyError as error:
            report.outcome = error.outcome
            response = problem = http.problem(request, error)
            if isinstance(error, RequestInProgress):
                options.applied(request, problem)
        report.status_code = response.status_code
    return response


def is_atomic_request() -> bool:
    """Tell whether ``ATOMIC_REQUESTS`` holds for the database of the keys."""
    return bool(connections[claims.database()].settings_dict["ATOMIC_REQUESTS"])


def _replay_or_run(
    request: HttpRequest, view: Responder, options: Options, report: Report
) -> HttpResponseBase:
    claim = options.claim(request)
    report.scope, report.key = claim.scope, claim.key
    wait = options.seconds_to_wait(request)
    attempt = None
    is_committing = False
    try:
        with claims.attempt(claim, wait=wait, waiting=report.waiting) as attempt:
            if isinstance(attempt, http.Answer):
                report.outcome, report.first_trace = Outcome.REPLAYED, attempt.trace
                return options.applied(request, http.replay(attempt))
            request.idempotency = attempt  # type: ignore[attr-defined]
            report.attempt = attempt.number
            with report.viewing:
                response = _rendered(view(request))
            kept = http.capture(request, response) if options.keep(response) else None
            if claims.is_rolled_back():
                _refuse_success(response)
            elif kept:
                is_committing = True
                claims.complete(attempt, kept)
                report.outcome = Outcome.EXECUTED
                return response
            else:
                claims.roll_back()
        _roll_back_others()
        error_name = f"HTTP {response.status_code}"
    except IdempotencyError:
        raise
    except Exception as error:
        if not isinstance(attempt, claims.Attempt):
            raise
        if is_committing and claims.was_committed(attempt):
            report.outcome = Outcome.EXECUTED
            raise  # a hook failed after the commit: the client sees its error, and then the answer
        report.outcome = Outcome.FAILED
        error_name = type(error).__qualname__
        handled = _handled(request, error, attempt, options)
        if handled is None:
            raise
        response = _rendered(handled)
        kept = http.capture(request, response) if options.keep(response) else None
    # Nothing of the view's work is left from here on.
    if kept:
        claims.keep(attempt, kept)
        report.outcome = Outcome.EXECUTED
    else:
        claims.fail(attempt, error_name)
    return response


def _roll_back_others() -> None:
    """Roll back with the attempt what ``ATOMIC_REQUESTS`` has opened on other databases."""
    for alias in set(connections) - {claims.database()}:
        connection = connections[alias]
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


def _rendered(response: Any) -> HttpResponseBase:
    """Render a template response now, while what it reads is still in the transaction."""
    if not isinstance(response, HttpResponseBase):
        raise TypeError(f"An idempotent view must return an HttpResponse, not {response!r}.")
    render = getattr(response, "render", None)
    return cast("HttpResponseBase", render()) if callable(render) else response


def _refuse_success(response: HttpResponseBase) -> None:
    if response.status_code < 400:
        raise TransactionManagementError(
            f"The view answered {response.status_code}, but its transaction will be rolled back: "
            "an atomic(savepoint=False) block failed in it, it closed the connection, or it called "
            "set_rollback(True). Roll back to a savepoint instead, or answer with an error."
        )


def _handled(
    request: HttpRequest, error: Exception, attempt: claims.Attempt, options: Options
) -> HttpResponseBase | None:
    """Give the answer for an exception that has rolled an attempt back; None to let it pass."""
    _roll_back_others()
    response = None
    try:
        if options.exception_handler:
            response = options.exception_handler(request, error)
        # Of what Django itself turns into an answer, this is the only kind that is kept.
        if response is None and isinstance(error, Http404):
            response = response_for_exception(request, error)
    finally:
        if response is None:
            claims.fail(attempt, type(error).__qualname__)
    if response is None and claims.is_conflict(error):
        raise TransactionConflict from error
    return response
