"""After a commit there are two honest responses: the view's own, or 500."""

import os
from socket import SHUT_RDWR, socket
from typing import Any

import pytest
from conftest import MakeDoor
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client
from support import run_at_commit, unreachable_database
from test_decorators import created, row

from idempotency.exceptions import (
    AfterCommitError,
    IdempotencyError,
    InvalidKey,
    KeyReused,
    OutcomeUnknown,
    RequestInProgress,
    ResponseNotKept,
    StoreUnavailable,
    TransactionConflict,
)
from idempotency.models import IdempotencyKey
from idempotency.signals import Outcome, answered
from testproject.shop.models import Payment

DJANGOS = [Http404, PermissionDenied, SuspiciousOperation, BadRequest]
OURS = [
    RequestInProgress,
    KeyReused,
    StoreUnavailable,
    TransactionConflict,
    InvalidKey,
    ResponseNotKept,
    OutcomeUnknown,
]


def with_hook(hook: Any) -> Any:
    """Return a view's work that succeeds, with a hook that runs after its commit."""

    def work(request: HttpRequest) -> HttpResponse:
        transaction.on_commit(hook)
        return created(request)

    return work


def failing(error: type[Exception]) -> Any:
    """Return a hook that raises."""

    def hook() -> None:
        raise error

    return hook


def refuse_everything(_request: HttpRequest, _error: Exception) -> HttpResponse:
    """Respond to any exception as a view's ``exception_handler`` may: with what is stored."""
    return HttpResponse(b"refused", status=402)


def check(door: Any) -> None:
    """Send a request whose hook fails, and its retry."""
    first = door()
    connection.close()  # as Django does behind a request that has lost it
    retry = door()

    assert (first.status_code, retry.status_code) == (500, 201)
    assert Payment.objects.count() == 1
    assert (row(door).status, row(door).last_error) == ("completed", "")


@pytest.mark.parametrize("error", [*DJANGOS, *OURS, ZeroDivisionError])
def test_fault_f3_a_hook_makes_no_4xx_of_committed_work(
    make_function_door: MakeDoor, error: type[Exception]
) -> None:
    """Whatever it raises that Django, or the app itself, has another status for."""
    check(make_function_door(with_hook(failing(error))))


@pytest.mark.parametrize("error", [PermissionDenied, RequestInProgress])
def test_fault_f3_at_every_entry_point(make_any_door: MakeDoor, error: type[Exception]) -> None:
    """One of Django's, and one of ours."""
    check(make_any_door(with_hook(failing(error))))


@pytest.mark.parametrize("error", [Http404, RequestInProgress])
def test_fault_f3_no_handler_is_asked(make_door: MakeDoor, error: type[Exception]) -> None:
    """It would respond for an attempt that was rolled back."""
    check(make_door(with_hook(failing(error)), exception_handler=refuse_everything))


def test_fault_f3_a_connection_that_is_lost_in_a_hook_is_no_503(make_door: MakeDoor) -> None:
    """It would say that nothing was processed."""

    def lose() -> None:
        with socket(fileno=os.dup(connection.connection.fileno())) as link:
            link.shutdown(SHUT_RDWR)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    check(make_door(with_hook(lose), exception_handler=refuse_everything))


def test_fault_f3_a_database_that_is_gone_in_a_hook_is_no_503(make_function_door: MakeDoor) -> None:
    """Where nothing can be looked up any more, what the app has seen is enough."""
    door = make_function_door(with_hook(_lost), exception_handler=refuse_everything)

    check(door)


def _lost() -> None:
    with unreachable_database(), connection.cursor():
        pytest.fail("There is a database.")


def test_fault_f3_the_cause_is_told_to_those_who_watch(make_function_door: MakeDoor) -> None:
    """An error tracker sees the hook's own exception, and the outcome is that of the view."""
    door = make_function_door(with_hook(failing(PermissionDenied)))
    told: list[Any] = []

    def note(sender: Any, **kwargs: Any) -> None:
        told.append(kwargs["outcome"])

    answered.connect(note)
    try:
        with pytest.raises(AfterCommitError, match=r"hook .* PermissionDenied") as caught:
            Client().post("/work/", headers=door.headers())
    finally:
        answered.disconnect(note)

    assert isinstance(caught.value.__cause__, PermissionDenied)
    assert told == [Outcome.EXECUTED]


@pytest.mark.parametrize("error", [Http404, RequestInProgress, PermissionDenied])
def test_fault_f3_the_same_exceptions_of_a_view_are_what_they_were(
    make_function_door: MakeDoor, error: type[Exception]
) -> None:
    """Nothing was committed there."""

    def work(request: HttpRequest) -> HttpResponse:
        created(request)
        raise error

    door = make_function_door(work)
    status = error.status if issubclass(error, IdempotencyError) else None

    assert door().status_code == (status or {Http404: 404, PermissionDenied: 403}[error])
    assert not Payment.objects.exists()


# A COMMIT whose outcome is not known


def losing_the_commit(*, is_committed: bool) -> Any:
    """Cut the connection in the round trip that ends with COMMIT, before or after it is done."""
    is_cut: list[bool] = []

    def lose(execute: Any, sql: str, *rest: Any) -> Any:
        if is_cut or not sql.endswith("; COMMIT"):
            return execute(sql, *rest)
        is_cut.append(True)
        if is_committed:
            execute(sql, *rest)
        with socket(fileno=os.dup(connection.connection.fileno())) as link:
            link.shutdown(SHUT_RDWR)
        return execute("SELECT 1", (), *rest[1:])

    return connection.execute_wrapper(lose)


@pytest.mark.parametrize("is_committed", [False, True])
def test_fault_f3_a_connection_that_is_lost_during_the_commit_says_nothing_false(
    make_door: MakeDoor, *, is_committed: bool
) -> None:
    """Neither that it was processed nor that it was not; the retry finds out."""
    door = make_door(created, exception_handler=refuse_everything)
    with losing_the_commit(is_committed=is_committed):
        first = door()
    connection.close()

    assert first.status_code == 503
    assert first.json()["type"].endswith("#outcome-unknown")
    assert first.headers["Retry-After"] == "1"
    assert Payment.objects.count() == IdempotencyKey.objects.filter(status="completed").count()
    assert Payment.objects.count() == int(is_committed)
    retry = door()
    assert (retry.status_code, "Idempotent-Replayed" in retry.headers) == (201, is_committed)
    assert Payment.objects.count() == 1


def test_fault_f3_a_commit_that_postgresql_refuses_is_what_it_was(
    make_function_door: MakeDoor,
) -> None:
    """A conflict that is found at the COMMIT itself has rolled everything back."""

    def work(request: HttpRequest) -> HttpResponse:
        run_at_commit("RAISE EXCEPTION USING ERRCODE = '40001'")
        return created(request)

    response = make_function_door(work)()

    assert response.status_code == 503
    assert response.json()["type"].endswith("#transaction-conflict")
    assert not Payment.objects.exists()
