"""The signal: every outcome of every door is told, once, and hearing it can do no harm."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from conftest import Door, MakeDoor
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, TestCase
from support import DEADLINE, Gate, eventually, threads, unreachable_database, waiting_for_a_lock
from test_decorators import Refused, created, refuse

from idempotency.models import IdempotencyKey
from idempotency.signals import Outcome, Stopwatch, answered
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, seed

Heard = list[dict[str, Any]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the signal tells, in order."""
    told: Heard = []

    def listen(**kwargs: Any) -> None:
        told.append(kwargs)

    answered.connect(listen)
    yield told
    answered.disconnect(listen)


def outcomes(heard: Heard) -> list[tuple[str, int | None, int | None]]:
    """Give outcome, attempt and status code of what was heard."""
    return [(told["outcome"], told["attempt"], told["status_code"]) for told in heard]


def breaking(once: Callable[[], Any]) -> Callable[[HttpRequest], Any]:
    """Give a view whose first run ends with something else."""
    firsts = iter([once])

    def work(request: HttpRequest) -> Any:
        response = created(request)
        for first in firsts:
            return first()
        return response

    return work


def raise_error() -> None:
    """Fail as no view should."""
    raise RuntimeError


def conflict() -> None:
    """Fail as PostgreSQL would for a deadlock."""
    with connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")


def test_a_first_request_and_its_retry_are_told(make_door: MakeDoor, heard: Heard) -> None:
    """With all that is known of them."""
    door = make_door(created)

    door(), door()

    assert outcomes(heard) == [("executed", 1, 201), ("replayed", None, 201)]
    row = IdempotencyKey.objects.get()
    for told in heard:
        assert told["sender"] is told["outcome"]
        assert isinstance(told["request"], HttpRequest)
        assert told["operation"] == "POST work/"
        assert (told["scope"], told["key"]) == (row.scope, door.key)
        assert told["waited"] == 0
        assert 0 < told["overhead"] < DEADLINE
        assert told["first_trace"] == b""


@pytest.mark.parametrize(
    ("once", "outcome"),
    [
        (raise_error, ("failed", 1, None)),
        (lambda: HttpResponse(status=500), ("failed", 1, 500)),
        (lambda: HttpResponse(status=400), ("failed", 1, 400)),
        (conflict, ("transaction_conflict", 1, 503)),
    ],
)
def test_what_leaves_no_answer_is_told(
    make_door: MakeDoor, heard: Heard, once: Callable[[], Any], outcome: tuple[Any, ...]
) -> None:
    """And that the retry is another attempt."""
    door = make_door(breaking(once))

    door(), door()

    assert outcomes(heard) == [outcome, ("executed", 2, 201)]


def test_a_refusal_that_is_kept_is_an_answer(make_door: MakeDoor, heard: Heard) -> None:
    """Whether the view returns it or raises it."""

    def work(request: HttpRequest) -> HttpResponse:
        raise Refused(402)

    door = make_door(work, exception_handler=refuse)

    door(), door()

    assert outcomes(heard) == [("executed", 1, 402), ("replayed", None, 402)]


def test_requests_that_do_not_run_are_told(make_door: MakeDoor, heard: Heard) -> None:
    """No key, another request's key, and an answer that was too large."""
    door = make_door(lambda request: HttpResponse(b"x" * 2**21), required=True)
    key = door.key
    door.key = ""
    door()
    door.key = key
    door(1), door(2), door(1)

    assert outcomes(heard) == [
        ("refused", None, 400),
        ("executed", 1, 200),
        ("key_reused", None, 422),
        ("response_not_kept", None, 409),
    ]
    assert [(told["scope"] is None, told["key"]) for told in heard] == [
        (True, None),
        *[(False, key)] * 3,
    ]


def test_a_concurrent_request_is_told(make_door: MakeDoor, heard: Heard) -> None:
    """At once where it does not wait; else with the time it waited, of which none is overhead."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        return created(request)

    door = make_door(work)

    with threads() as start, Stopwatch() as all_of_it:
        first = start(door)
        assert gate.reached()
        door()
        retry = start(door, Prefer="wait=5")
        eventually(waiting_for_a_lock)
        gate.open()
        assert first.result().content == retry.result().content

    assert sorted(outcomes(heard), key=str) == [
        ("executed", 1, 201),
        ("in_progress", None, 409),
        ("replayed", None, 201),
    ]
    told = {told["outcome"]: told for told in heard}
    assert told[Outcome.IN_PROGRESS]["waited"] == told[Outcome.EXECUTED]["waited"] == 0
    waited = told[Outcome.REPLAYED]["waited"]
    assert 0.05 < waited < all_of_it.seconds
    for outcome in told.values():
        assert outcome["overhead"] + waited < all_of_it.seconds


def test_an_unreachable_store_is_told(make_door: MakeDoor, heard: Heard) -> None:
    """With the key, which is known without it."""
    door = make_door(created, scope=lambda request: "partner:1")
    door.token = None
    with unreachable_database():
        door()

    assert outcomes(heard) == [("unavailable", None, 503)]
    assert (heard[0]["scope"], heard[0]["key"]) == ("partner:1", door.key)


def test_what_is_wrong_before_the_claim_is_told(make_door: MakeDoor, heard: Heard) -> None:
    """A resolver of the project that fails leaves no answer and no attempt."""

    def broken(request: HttpRequest) -> str:
        raise LookupError

    door = make_door(created, scope=broken)

    assert door().status_code == 500
    assert outcomes(heard) == [("failed", None, None)]


def test_requests_that_are_not_covered_are_not_told(make_door: MakeDoor, heard: Heard) -> None:
    """Without a key, where it may be left out; and with another method."""
    door = make_door(created)
    door(method="PUT")
    door.key = ""
    door()

    assert heard == []


def test_a_failing_hook_does_not_unmake_an_answer(make_door: MakeDoor, heard: Heard) -> None:
    """The work is committed: the first request is told as such though its client saw an error."""

    def work(request: HttpRequest) -> HttpResponse:
        transaction.on_commit(raise_error)
        return created(request)

    door = make_door(work)

    assert [door().status_code, door().status_code] == [500, 201]
    assert outcomes(heard) == [("executed", 1, None), ("replayed", None, 201)]


def test_it_is_told_after_the_commit(make_door: MakeDoor) -> None:
    """Who hears of an answer can rely on it: another connection sees it, and nothing is open."""
    seen = []

    def listen(key: str, **kwargs: Any) -> None:
        with threads() as start:
            seen.append(start(IdempotencyKey.objects.get, key=key).result().status)
        seen.append(connection.in_atomic_block)

    answered.connect(listen)
    try:
        make_door(created)()
    finally:
        answered.disconnect(listen)

    assert seen == ["completed", False]


def test_a_receiver_that_raises_does_no_harm(
    make_door: MakeDoor, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody but the log hears of it: neither the client nor the other receivers."""

    def fail(**kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT broken")

    async def fail_later(**kwargs: Any) -> None:
        raise RuntimeError("a paid answer must not become a 500")

    answered.connect(fail)
    answered.connect(fail_later)
    door = make_door(created)
    try:
        first, retry = door(), door()
    finally:
        answered.disconnect(fail)
        answered.disconnect(fail_later)

    assert (first.status_code, retry.content) == (201, first.content)
    assert Payment.objects.count() == 1
    assert outcomes(heard) == [("executed", 1, 201), ("replayed", None, 201)]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert sum("a paid answer must not" in error.getMessage() for error in errors) == 2
    assert len(errors) == 4


async def _twice(door: Door) -> list[bytes]:
    headers = {"Idempotency-Key": door.key, "Authorization": f"Bearer {ALICE.token}"}
    post = AsyncClient().post
    return [(await post(door.path, headers=headers)).content for _ in range(2)]


def test_receivers_may_be_async_under_asgi(make_door: MakeDoor) -> None:
    """They run in the server's own event loop."""
    seen = []

    async def listen(outcome: Outcome, **kwargs: Any) -> None:
        seen.append(outcome)

    answered.connect(listen)
    door = make_door(created)
    try:
        first, retry = async_to_sync(_twice)(door)
    finally:
        answered.disconnect(listen)

    assert first == retry
    assert seen == [Outcome.EXECUTED, Outcome.REPLAYED]


def test_a_receiver_may_want_one_outcome_only(make_function_door: MakeDoor) -> None:
    """It connects to the outcome as the sender."""
    seen = []

    def listen(outcome: Outcome, **kwargs: Any) -> None:
        seen.append(outcome)

    answered.connect(listen, sender=Outcome.KEY_REUSED)
    door = make_function_door(created)
    try:
        door(1), door(2), door(1)
    finally:
        answered.disconnect(listen, sender=Outcome.KEY_REUSED)

    assert seen == [Outcome.KEY_REUSED]


def test_the_time_of_the_view_is_not_ours(make_door: MakeDoor, heard: Heard) -> None:
    """Overhead is what remains of the time: the view's own is not in it."""
    watch = Stopwatch()

    def work(request: HttpRequest) -> HttpResponse:
        with watch:
            sum(range(3_000_000))
        return created(request)

    with Stopwatch() as all_of_it:
        make_door(work)()

    assert heard[0]["overhead"] <= all_of_it.seconds - watch.seconds


class InTestCase(TestCase):
    """Django's own test case holds a transaction open; what it tests is told all the same."""

    def test_outcomes_are_told(self) -> None:
        """As they are outside."""
        seed()
        told: Heard = []

        def listen(**kwargs: Any) -> None:
            told.append(kwargs)

        answered.connect(listen)
        headers = {"Idempotency-Key": "k", "Authorization": f"Bearer {ALICE.token}"}
        order = {"amount": "1.00", "currency": "EUR", "card": "tok_visa"}
        for _ in range(2):
            self.client.post("/payments/", order, "application/json", headers=headers)
        answered.disconnect(listen)

        assert outcomes(told) == [("executed", 1, 201), ("replayed", None, 201)]
        assert Account.objects.get(user__username="alice").balance == 999
