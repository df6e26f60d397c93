"""The tally: it counts what clients saw, and nobody waits for it."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MakeDoor
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Now
from django.test import Client, TestCase
from django.test.utils import CaptureQueriesContext
from support import (
    CHECKOUT,
    DEADLINE,
    database_url,
    eventually,
    shop,
    threads,
    unreachable_database,
)
from test_concurrency import pay
from test_decorators import created

from idempotency.models import IdempotencyKey, OutcomeCount
from idempotency.signals import Outcome
from idempotency.tally import tally
from testproject import variants


@pytest.fixture
def due_tally() -> None:
    """Have the tally flush at the end of the next request, and then as in production."""
    tally.forget()


def counted() -> dict[str, int]:
    """Give what the database says of each outcome."""
    rows = OutcomeCount.objects.values_list("outcome").annotate(Sum("count"))
    return {outcome: int(number) for outcome, number in rows}


def test_every_door_counts(make_door: MakeDoor) -> None:
    """In memory, until they are written down."""
    door = make_door(created)
    door(1), door(1), door(1), door(2)

    assert counted() == {}
    tally.flush()
    assert counted() == {"executed": 1, "replayed": 2, "key_reused": 1}


def test_a_request_that_ends_writes_the_counts_down(
    make_function_door: MakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one in ten seconds does; no other request executes a statement more."""
    clock: Any = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now, time=time.time)
    monkeypatch.setattr("idempotency.tally.time", clock)
    tally.forget()
    door = make_function_door(created, scope=lambda request: "partner:1")

    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            door()
        return [query["sql"].split()[0] for query in queries]

    door()
    assert counted() == {"executed": 1}
    for seconds in (0, 5, 4.9):
        clock.now += seconds
        assert statements() == ["SELECT"]
    assert counted() == {"executed": 1}
    clock.now += 0.2
    assert statements() == ["SELECT", "INSERT"]
    assert statements() == ["SELECT"]
    assert counted() == {"executed": 1, "replayed": 4}


@pytest.mark.usefixtures("alice", "due_tally")
def test_any_request_of_the_site_writes_them_down(make_function_door: MakeDoor) -> None:
    """A site that gets no more keys still shows its last ones."""
    tally.count(Outcome.EXECUTED)

    Client().get("/nothing/is/here/")

    assert counted() == {"executed": 1}


@pytest.mark.usefixtures("committed")
def test_writing_down_waits_for_no_fsync() -> None:
    """After some flush the log is ahead of the disk, which a synchronous commit never leaves."""

    def is_ahead() -> bool:
        tally.count(Outcome.EXECUTED)
        tally.flush()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")
            return bool(cursor.fetchone()[0])

    assert any(is_ahead() for _ in range(50))


@pytest.mark.usefixtures("committed")
def test_many_threads_lose_no_count() -> None:
    """While they count and write down at once."""
    start_together = threading.Barrier(8)

    def count() -> None:
        start_together.wait(DEADLINE)
        for number in range(200):
            tally.count(list(Outcome)[number % 3])
            if number % 20 == 0:
                tally.flush()

    with threads() as start:
        for done in [start(count) for _ in range(8)]:
            done.result()
    tally.flush()

    assert sum(counted().values()) == 8 * 200


@pytest.mark.usefixtures("committed")
def test_counts_that_cannot_be_written_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """For the next time: the request is not harmed, and the log says why."""
    tally.count(Outcome.EXECUTED)
    with unreachable_database():
        tally.flush()

    assert "Could not write down the counts of outcomes" in caplog.text
    tally.count(Outcome.EXECUTED)
    tally.flush()
    assert counted() == {"executed": 2}


@pytest.mark.usefixtures("committed")
def test_a_row_that_somebody_holds_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A flush gives up after a second, and leaves the connection as it was."""
    tally.count(Outcome.EXECUTED)
    tally.flush()
    tally.count(Outcome.EXECUTED)

    def flush() -> str:
        tally.flush()
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return str(cursor.fetchone()[0])

    with threads() as start:
        with transaction.atomic():
            OutcomeCount.objects.update(count=5)
            assert start(flush).result(DEADLINE) == "0"

    assert "lock timeout" in caplog.text
    tally.flush()
    assert counted() == {"executed": 6}


FORK = """
import os, django
django.setup()
from idempotency.signals import Outcome
from idempotency.tally import tally

tally.count(Outcome.EXECUTED)
if os.fork():
    os.wait()
else:
    tally.count(Outcome.REPLAYED)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_each_process_writes_its_own_counts_down_when_it_ends() -> None:
    """A child that was forked leaves its parent's counts to the parent."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
    }
    subprocess.run([sys.executable, "-c", FORK], cwd=CHECKOUT, env=environment, check=True)

    assert counted() == {"executed": 1, "replayed": 1}


@pytest.mark.usefixtures("committed")
def test_counts_stay_in_their_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has counted does not go to the project's own database when the test is over."""
    tally.count(Outcome.EXECUTED)
    with monkeypatch.context() as after_the_tests:
        after_the_tests.setitem(connection.settings_dict, "NAME", "another")
        with CaptureQueriesContext(connection) as queries:
            tally.flush()

    assert queries.captured_queries == []
    assert counted() == {}


class InTestCase(TestCase):
    """Django's own test case takes back what it did, so nothing is counted of it."""

    def test_nothing_is_counted(self) -> None:
        """And nothing is written down meanwhile."""
        tally.forget()
        tally.count(Outcome.EXECUTED)
        assert not tally._counts

        connection.in_atomic_block = False
        tally.count(Outcome.EXECUTED)
        connection.in_atomic_block = True
        with self.assertNumQueries(0):
            tally.flush_when_due()
        assert len(tally._counts) == 1


@pytest.mark.usefixtures("committed")
def test_old_hours_are_trimmed() -> None:
    """After thirty days no picture shows them, and the purge takes them along."""
    for days in (29, 31, 400):
        OutcomeCount.objects.create(
            hour=Now() - timedelta(days=days), outcome=Outcome.EXECUTED, count=days
        )

    IdempotencyKey.objects.purge()

    assert str(OutcomeCount.objects.get()).startswith("29 executed in the hour from 20")


def outcome_of(response: Any) -> str:
    """Tell what a client can see of an outcome."""
    if response.headers.get("Idempotent-Replayed"):
        return "replayed"
    if "transaction-conflict" in response.text:
        return "transaction_conflict"
    by_status = {201: "executed", 400: "refused", 409: "in_progress", 422: "key_reused"}
    return by_status.get(response.status_code, "failed")


@pytest.mark.slow
@pytest.mark.usefixtures("alice")
def test_two_workers_count_what_their_clients_saw() -> None:
    """Under load, and ended as a deployment ends them: the totals are those of the answers."""
    keys = [uuid.uuid4().hex for _ in range(40)]

    with shop("wsgi") as client, threads() as start:

        def call(key: str, **options: Any) -> list[str]:
            """Send it, and again where PostgreSQL gave it up; only higher isolation does that."""
            outcomes = [outcome_of(pay(client, key, "wsgi", **options))]
            while outcomes[-1] == "transaction_conflict":
                assert settings.DATABASE_VARIANT in variants.ISOLATED
                outcomes.append(outcome_of(pay(client, key, "wsgi", **options)))
            return outcomes

        calls = [start(call, key) for key in keys for _ in range(6)]
        calls += [start(call, key, card="tok_error") for key in ("a", "b") for _ in range(3)]
        seen = Counter(outcome for done in calls for outcome in done.result())
        for key in keys[:7]:
            seen.update(call(key, amount="0.02"))
        seen.update(call(""))
        eventually(counted)  # the first request has written its count down, the rest is in memory

    assert counted() == seen
    assert (seen["executed"], seen["key_reused"], seen["refused"]) == (40, 7, 1)
    assert seen["replayed"] + seen["in_progress"] >= 200
