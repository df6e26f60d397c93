"""A response is there for long enough to be found, however late in a key's life it came."""

import threading
import time
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from conftest import MakeDoor
from django.db.models import F
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse
from support import DEADLINE, Gate, eventually, run_at_commit, threads, waiting_for_a_lock
from test_decorators import created, row

from idempotency import claims
from idempotency.models import IdempotencyKey
from testproject.shop.models import Payment

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


def leave(seconds: float) -> None:
    """Set how much of the life of all keys is left, in seconds; 0 for none."""
    end = Now() + timedelta(seconds=seconds) if seconds else F("created_at") + MICROSECOND
    IdempotencyKey.objects.update(expires_at=end)


def left(door: Any) -> timedelta:
    """Return for how long the response is kept."""
    it = row(door)
    assert it.completed_at is not None
    return it.expires_at - it.completed_at


def test_fault_f2_a_view_that_takes_longer_than_a_key_lives_runs_once(
    make_door: MakeDoor,
) -> None:
    """Its copy is told 409, comes back after the second that it was told, and gets the response."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        response = created(request)
        gate.wait()
        return response

    door = make_door(work, ttl=SECOND)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        eventually(IdempotencyKey.objects.expired().exists)
        copy = door()
        gate.open()
        told = first.result()
    retry = door()

    assert (copy.status_code, copy.headers["Retry-After"]) == (409, "1")
    assert told.status_code == retry.status_code == 201
    assert told.content == retry.content
    assert Payment.objects.count() == 1
    assert left(door) == SECOND


def test_fault_f2_a_copy_that_waited_gets_the_response_though_it_has_expired(
    make_door: MakeDoor,
) -> None:
    """It met the attempt. Keys that live for a millisecond show it without a race."""
    calls: list[int] = []
    may_end = threading.Event()

    def work(request: HttpRequest) -> HttpResponse:
        calls.append(1)
        assert may_end.wait(DEADLINE)
        return created(request)

    door = make_door(work, ttl=timedelta(milliseconds=1), wait=5)
    with threads() as start:
        first = start(door)
        eventually(lambda: calls)
        retries = [start(door) for _ in range(2)]
        eventually(lambda: waiting_for_a_lock() == 2)
        may_end.set()
        bodies = {it.result().content for it in (first, *retries)}

    assert len(bodies) == len(calls) == 1


def test_fault_f2_a_short_life_ends_all_the_same(make_door: MakeDoor) -> None:
    """A response that has expired when a request arrives is as if it had never been."""
    door = make_door(created, ttl=timedelta(milliseconds=10))
    first = door()
    eventually(IdempotencyKey.objects.expired().exists)

    assert door().content != first.content
    assert Payment.objects.count() == 2


@pytest.mark.parametrize("seconds", [0, 0.5, 1800])
def test_fault_f2_a_success_at_the_end_of_the_day_is_found_after_it(
    make_door: MakeDoor, seconds: float
) -> None:
    """Attempts have failed all day; one succeeds just before the key expires, or just after."""
    outcomes = iter([ZeroDivisionError])

    def work(request: HttpRequest) -> HttpResponse:
        for error in outcomes:
            raise error
        response = created(request)
        leave(seconds)
        return response

    door = make_door(work)
    assert door().status_code == 500

    first = door()
    assert first.status_code == 201
    assert left(door) == timedelta(hours=1)
    assert door().content == first.content
    assert Payment.objects.count() == 1


def test_fault_f2_a_response_stored_after_a_rollback_is_found_as_long(make_door: MakeDoor) -> None:
    """It is written by another statement."""
    calls: list[int] = []

    def work(request: HttpRequest) -> HttpResponse:
        calls.append(1)
        raise Http404

    door = make_door(work, ttl=timedelta(minutes=10))
    with threads() as start:
        assert door().status_code == 404
        assert timedelta(minutes=9) < left(door) < timedelta(minutes=10)
        IdempotencyKey.objects.all().delete()
        slow = start(_late, door)
        assert slow.result().status_code == 404
    assert left(door) == timedelta(minutes=10)
    assert door().status_code == 404
    assert len(calls) == 2


def _late(door: Any) -> Any:
    """Send a request whose key has a second left when its response is stored."""
    keep = claims.keep

    def keep_late(*arguments: Any) -> None:
        leave(1)
        keep(*arguments)

    with mock.patch.object(claims, "keep", keep_late):
        return door()


def test_fault_f2_a_commit_that_takes_long_leaves_a_useful_time_after_it(
    make_door: MakeDoor, committed: None
) -> None:
    """Nothing sees the response before its end, and its time has run meanwhile."""

    def work(request: HttpRequest) -> HttpResponse:
        run_at_commit("PERFORM pg_sleep(0.5)")
        return created(request)

    door = make_door(work, ttl=timedelta(seconds=0.4))
    before = IdempotencyKey.objects.expired().count()
    first = door()

    assert (first.status_code, before) == (201, 0)
    assert left(door) > timedelta(seconds=0.8), "The commit's time, and a life after it."


def test_fault_f2_an_ordinary_request_leaves_the_expiry_alone(make_door: MakeDoor) -> None:
    """So that its index is written once: also where keys live for a short time only."""
    for number, ttl in enumerate([timedelta(minutes=5), timedelta(days=1)]):
        door = make_door(created, ttl=ttl)
        door.key = str(number)
        door()
        assert row(door).expires_at - row(door).created_at == ttl


@pytest.mark.slow
def test_fault_f2_a_client_that_obeys_retry_after_finds_the_response(
    make_function_door: MakeDoor,
) -> None:
    """With real time, and keys that live for no longer than it stays away."""

    def work(request: HttpRequest) -> HttpResponse:
        response = created(request)
        time.sleep(2.5)
        return response

    door = make_function_door(work, ttl=timedelta(seconds=2))
    with threads() as start:
        first = start(door)
        eventually(IdempotencyKey.objects.exists)
        while (copy := door()).status_code == 409:
            time.sleep(int(copy.headers["Retry-After"]))

    assert copy.content == first.result().content
    assert Payment.objects.count() == 1
