"""The flow of every door: how a covered request is answered.

`answer` is the nine steps of the package's docstring, top to bottom.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast

from django.core.handlers.exception import response_for_exception
from django.db import connections
from django.db.transaction import TransactionManagementError
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from . import answers, bodies, claims, database, http, problems
from .exceptions import (
    AfterCommitError,
    IdempotencyError,
    OutcomeUnknown,
    RequestInProgress,
    TransactionConflict,
)
from .options import Options
from .signals import Outcome, Report, reporting

Responder = Callable[[HttpRequest], HttpResponseBase]
"""A view whose other arguments are filled in already."""


def answer(request: HttpRequest, view: Responder, options: Options) -> HttpResponseBase:
    """Answer a covered request: with its stored answer, with the view's, or with a problem.

    This is the flow of every door.
    """
    operation = http.operation(request)
    with reporting(request, operation) as report:
        try:
            claim = options.claim(request, operation)
            response = _replay_or_run(request, view, options, claim, report)
        except IdempotencyError as error:
            report.outcome = error.outcome
            response = problem = problems.respond(request, error)
            if isinstance(error, RequestInProgress):
                options.applied(request, problem)
        report.status_code = response.status_code
    return response


def is_atomic_request() -> bool:
    """Tell whether ``ATOMIC_REQUESTS`` holds for the database of the keys."""
    return bool(connections[database.alias()].settings_dict["ATOMIC_REQUESTS"])


def _replay_or_run(
    request: HttpRequest,
    view: Responder,
    options: Options,
    claim: claims.Claim,
    report: Report,
) -> HttpResponseBase:
    report.scope, report.key = claim.scope, claim.key
    wait = options.seconds_to_wait(request)
    run = None
    try:
        with claims.attempt(claim, wait=wait, waiting=report.waiting) as found:
            if isinstance(found, answers.Answer):
                report.outcome, report.first_trace = Outcome.REPLAYED, found.trace
                return options.applied(request, answers.replay(found))
            run = _Run(request, options, found, report)
            run.call(view)
    except Exception as error:
        if run is None:
            with database.reachable():  # Django, too, may find that it is not
                raise
        run.recover(error)
    return run.settle()


@dataclass(slots=True)
class _Run:
    """One run of a view, and what has come of it so far."""

    request: HttpRequest
    options: Options
    attempt: claims.Attempt
    report: Report
    response: HttpResponseBase = field(init=False)
    kept: answers.Answer | None = None
    """What is kept of the response."""
    is_committed: bool = False
    is_confirmed: bool = True
    """Whether the commit is as durable as was asked."""
    is_unknown: bool = False
    """Whether the connection was lost during the commit."""
    seconds_to_commit: float = 0
    error_name: str = ""
    """Why nothing was committed."""

    def call(self, view: Responder) -> None:
        """Call the view in the attempt's transaction, and commit both or roll back both."""
        self.request.idempotency = self.attempt  # type: ignore[attr-defined]
        self.report.attempt = self.attempt.number
        with self.report.viewing:
            response = _rendered(view(self.request))
        self._take(response)
        self.error_name = f"HTTP {response.status_code}"
        if claims.open_blocks(self.attempt):
            _refuse_open_blocks(response)
        if claims.is_rolled_back():
            _refuse_success(response)
        elif self.kept:
            self._commit(self.kept)
        else:
            claims.roll_back()

    def _commit(self, kept: answers.Answer) -> None:
        began = monotonic()
        try:
            self.is_confirmed = claims.complete(self.attempt, kept)
        except OutcomeUnknown:
            self.is_unknown = True  # Django may go on to raise another error for the connection
            raise
        self.is_committed = True
        self.seconds_to_commit = monotonic() - began

    def recover(self, error: Exception) -> None:
        """Take the answer for an exception out of the attempt.

        Raises:
            AfterCommitError: The view's work has been committed.
            OutcomeUnknown: It may have been.
            Exception: `error` itself, where there is no answer for it.
        """
        if self.is_committed:
            self.report.outcome = Outcome.EXECUTED
            raise AfterCommitError(
                "The view's work and its response are committed, and then a hook of "
                f"transaction.on_commit() failed, or the connection: {type(error).__qualname__}"
            ) from error
        self.error_name = type(error).__qualname__
        if self.is_unknown or isinstance(error, IdempotencyError):
            _roll_back_others()
            claims.fail(self.attempt, self.error_name)
            if self.is_unknown:
                raise OutcomeUnknown from error
            raise error
        response = _handled(self.request, error, self.attempt, self.options)
        if response is None:
            raise error
        try:
            self._take(_rendered(response))
        except IdempotencyError as refusal:
            claims.fail(self.attempt, type(refusal).__qualname__)
            raise

    def settle(self) -> HttpResponseBase:
        """Keep the answer of an attempt that was rolled back, or record why there is none.

        Raises:
            OutcomeUnknown: No synchronous standby has confirmed what was committed.
        """
        if self.is_committed:
            claims.prolong(self.attempt, self.seconds_to_commit)
            if not self.is_confirmed:
                raise OutcomeUnknown
        else:
            _roll_back_others()
            if not self.kept:
                claims.fail(self.attempt, self.error_name)
                return self.response
            claims.keep(self.attempt, self.kept)
        self.report.outcome = Outcome.EXECUTED
        return self.response

    def _take(self, response: HttpResponseBase) -> None:
        self.response = response
        if self.options.keep(response):
            bodies.refuse_incomplete(self.request, to_the_end=True)
            self.kept = answers.capture(self.request, response)
        else:
            self.kept = None


def _roll_back_others() -> None:
    """Roll back with the attempt what ``ATOMIC_REQUESTS`` has opened on other databases."""
    for alias in set(connections) - {database.alias()}:
        connection = connections[alias]
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


def _rendered(response: Any) -> HttpResponseBase:
    """Render a template response now, while what it reads is still in the transaction."""
    if not isinstance(response, HttpResponseBase):
        raise TypeError(f"An idempotent view must return an HttpResponse, not {response!r}.")
    render = getattr(response, "render", None)
    return cast("HttpResponseBase", render()) if callable(render) else response


def _refuse_open_blocks(response: HttpResponseBase) -> None:
    # Ends the block that a stream is in. close() would also say that the request is over, and have
    # Django close the connection.
    for close in response._resource_closers:  # type: ignore[attr-defined]  # noqa: SLF001
        with suppress(Exception):
            close()
    raise TransactionManagementError(
        f"The view answered {response.status_code}, and has left an atomic() block open, so that "
        "nothing can be committed. A stream may have none around what it yields."
    )


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
    if response is None and database.is_conflict(error):
        raise TransactionConflict from error
    return response
