"""The purge on real connections: it takes what is expired, in nobody's way, and says how much."""

import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.db.models import Sum
from support import (
    DEADLINE,
    PAUSED,
    eventually,
    isolate,
    keep_session,
    paused_deletes,
    put_expired,
    threads,
    waiting_for_a_lock,
)
from test_claims import ANSWER, claim, row, succeed

from idempotency import claims, database, exceptions, purges, statements
from idempotency.models import IdempotencyKey, Purge
from idempotency.purges import Purged

ISOLATIONS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

purge: Callable[..., Purged] = IdempotencyKey.objects.purge


def keys() -> list[str]:
    """Give the keys that are there."""
    return sorted(IdempotencyKey.objects.values_list("key", flat=True))


# What it deletes, and what it says


@pytest.mark.usefixtures("committed")
def test_what_has_expired_goes_and_what_has_not_stays() -> None:
    """Completed or not; and a second purge finds nothing."""
    put_expired("a", "b")
    succeed(claim("c"))

    assert purge() == Purged(rows=2, is_complete=True)
    assert keys() == ["c"]
    assert purge() == Purged(rows=0, is_complete=True)


@pytest.mark.usefixtures("committed")
def test_what_has_not_expired_stays_in_a_table_of_partitions() -> None:
    """Two rows there may have the same place, each in a partition of its own."""

    def purge_partitions() -> list[str]:
        keep_session()
        with connection.cursor() as cursor:
            cursor.execute(PARTITIONED)
        for number in range(40):
            succeed(claim(f"live {number}"))
            put_expired(f"expired {number}")
        purge()
        return keys()

    try:
        with threads() as start:
            left = start(purge_partitions).result()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS partitioned CASCADE")

    assert sum(key.startswith("live") for key in left) == 40
    assert len(left) < 80


PARTITIONED = """
    CREATE SCHEMA partitioned;
    CREATE TABLE partitioned.idempotency_key (LIKE public.idempotency_key INCLUDING ALL)
        PARTITION BY HASH (id);
    CREATE TABLE partitioned.part_0 PARTITION OF partitioned.idempotency_key
        FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE partitioned.part_1 PARTITION OF partitioned.idempotency_key
        FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    SET search_path TO partitioned, public
"""


@pytest.mark.usefixtures("committed")
def test_each_batch_is_committed_by_itself() -> None:
    """Others see it gone, the oldest first, and the record counts with it."""
    put_expired(*"abcde")
    seen: list[Any] = []

    with threads() as start:

        def look(rows: int) -> None:
            record = start(Purge.objects.get).result()
            assert (record.rows, record.ended_at, record.is_complete) == (rows, None, False)
            seen.append((rows, start(keys).result()))

        purge(batch_size=2, on_batch=look)

    assert seen == [(2, ["c", "d", "e"]), (4, ["e"]), (5, [])]
    record = Purge.objects.get()
    assert (record.rows, record.is_complete) == (5, True)
    assert record.ended_at
    assert record.ended_at >= record.started_at


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(
    ("budget", "rows"),
    [
        ({"max_rows": 2}, 2),
        ({"max_rows": 3, "batch_size": 2}, 3),
        ({"max_seconds": 1e-9}, 0),
        ({"on_batch": lambda rows: rows >= 2, "batch_size": 1}, 2),
    ],
)
def test_a_budget_ends_it(budget: dict[str, Any], rows: int) -> None:
    """It says that something is left, and the next purge takes that."""
    put_expired(*"abcde")

    assert purge(**budget) == Purged(rows, is_complete=False)
    assert not Purge.objects.get().is_complete
    assert purge(max_seconds=DEADLINE, max_rows=5) == Purged(5 - rows, is_complete=True)


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("name", ["batch_size", "max_rows", "max_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_budget_that_cannot_be_is_refused(name: str, value: float) -> None:
    """Before anything is deleted."""
    put_expired("a")

    with pytest.raises(ValueError, match=rf"{name}= must be more than 0, not {value}"):
        purge(**{name: value})
    assert keys() == ["a"]


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_pause_that_cannot_be_is_refused(value: float) -> None:
    """Before anything is deleted."""
    put_expired("a")

    with pytest.raises(ValueError, match=f"pause= must be 0 or more, not {value}"):
        purge(pause=value)
    assert keys() == ["a"]


@pytest.mark.usefixtures("committed")
def test_it_pauses_after_each_batch() -> None:
    """So that live requests have the database to themselves most of the time."""
    put_expired(*"abc")
    began = time.monotonic()

    assert purge(batch_size=1, pause=0.2) == Purged(3, is_complete=True)
    assert time.monotonic() - began >= 3 * 0.2


@pytest.mark.usefixtures("committed")
def test_it_cannot_be_narrowed() -> None:
    """A filter that it would not heed is refused; an alias is heeded."""
    put_expired("a")

    for narrowed in (IdempotencyKey.objects.filter(key="b"), IdempotencyKey.objects.all()[:1]):
        with pytest.raises(TypeError, match="unfiltered"):
            narrowed.purge()
    assert IdempotencyKey.objects.using("default").purge().rows == 1


@pytest.mark.usefixtures("committed")
def test_an_open_transaction_is_refused() -> None:
    """Its batches would not be committed, and would hold their rows."""
    put_expired("a")

    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        purge()
    transaction.set_autocommit(False)
    try:
        with pytest.raises(RuntimeError, match="AUTOCOMMIT"):
            purge()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert keys() == ["a"]


@pytest.mark.django_db
def test_it_works_in_a_test_case() -> None:
    """There everything happens in the test's own transaction."""
    put_expired("a", "b")

    assert purge(batch_size=1) == Purged(2, is_complete=True)


@pytest.mark.usefixtures("committed")
def test_few_records_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each purge removes those that have become too old."""
    monkeypatch.setattr(purges, "_RECORDS_KEPT", 3)

    for _ in range(5):
        purge()

    assert Purge.objects.count() == 3
    assert str(Purge.objects.first()).startswith("purge of 2")


@pytest.mark.usefixtures("committed")
def test_nothing_depends_on_the_record() -> None:
    """Somebody may delete it while the purge runs."""
    put_expired("a", "b")

    def forget(_rows: int) -> None:
        Purge.objects.all().delete()

    assert purge(batch_size=1, on_batch=forget) == Purged(2, is_complete=True)


@pytest.mark.usefixtures("committed")
def test_the_lag_is_that_of_the_oldest_expired_key() -> None:
    """None has expired: none."""
    succeed(claim())
    assert IdempotencyKey.objects.purge_lag() == timedelta(0)

    put_expired("a", ago="3 days")
    put_expired("b", ago="1 day")
    lag = IdempotencyKey.objects.purge_lag()
    assert timedelta(days=3) <= lag < timedelta(days=3, seconds=DEADLINE)


@pytest.mark.usefixtures("committed")
def test_a_batch_waits_for_no_fsync() -> None:
    """After some batch the log is ahead of the disk; other transactions wait as before."""
    put_expired(*map(str, range(50)))
    ahead = []

    with connection.cursor() as cursor:

        def look(_rows: int) -> None:
            cursor.execute("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")
            ahead.append(cursor.fetchone()[0])

        purge(batch_size=1, on_batch=look)
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone()[0] == "on"
    assert any(ahead)


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(
    ("statement", "values"),
    [(statements.PURGE_BATCH, ("-infinity", 100, 1)), (statements.PURGE_END, (1, -1))],
    ids=["batch", "end"],
)
def test_the_expired_are_found_by_the_index(statement: str, values: tuple[Any, ...]) -> None:
    """However large the table, nothing is read or sorted but what is to be deleted."""
    put_expired(*map(str, range(3000)))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE idempotency_key")
        cursor.execute(f"EXPLAIN {statement}", values)
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert re.search("Index (Only )?Scan using idempotency_key_expires_at", plan)
    assert ("Tid Scan on idempotency_key" in plan) == (statement == statements.PURGE_BATCH)
    assert "Seq Scan on idempotency_key" not in plan
    assert "Sort" not in plan


# In nobody's way


@pytest.mark.skipif(
    settings.DATABASE_VARIANT == "serializable-server",
    reason="PostgreSQL may give up the request for the purge, and its retry is another test's.",
)
@pytest.mark.usefixtures("committed")
def test_a_row_that_a_running_request_holds_is_passed_over() -> None:
    """Its answer is committed as ever; then the row is anybody's."""
    mine = claim("held", ttl=timedelta(milliseconds=1))

    with threads() as start:
        with claims.attempt(mine) as attempt:
            assert isinstance(attempt, claims.Attempt)
            eventually(lambda: start(IdempotencyKey.objects.expired().exists).result())
            put_expired_elsewhere = start(put_expired, "a", "b")
            put_expired_elsewhere.result()
            assert start(purge).result() == Purged(2, is_complete=False)
            claims.complete(attempt, ANSWER)
        assert row(mine).status == "completed"

    assert purge() == Purged(1, is_complete=True)


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("when", ["BEFORE ROW", "AFTER ROW"])
def test_two_purges_share_the_work(when: str) -> None:
    """The second passes over what the first has taken, without waiting for it."""
    put_expired(PAUSED, "a", "b", "c")

    with threads() as start, paused_deletes(when) as go_on:
        first = start(purge, max_rows=2)
        eventually(lambda: waiting_for_a_lock() == 1)

        assert start(purge).result(DEADLINE) == Purged(2, is_complete=False)
        assert keys() == ["a", PAUSED]

        go_on()
        assert first.result() == Purged(2, is_complete=True)
    assert keys() == []
    assert Purge.objects.aggregate(Sum("rows")) == {"rows__sum": 4}


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("when", ["BEFORE ROW", "AFTER ROW"])
def test_claims_go_on_while_a_batch_is_under_way(when: str) -> None:
    """Of a new key, and of an expired one that the batch has not taken."""
    put_expired(PAUSED, "a", "b")

    with threads() as start, paused_deletes(when) as go_on:
        purging = start(purge, batch_size=2)
        eventually(lambda: waiting_for_a_lock() == 1)

        assert start(succeed, claim("new")).result(DEADLINE).number == 1
        assert start(succeed, claim("b")).result(DEADLINE).number == 1

        go_on()
        assert purging.result() == Purged(2, is_complete=True)
    assert keys() == ["b", "new"]
    assert {key.status for key in IdempotencyKey.objects.all()} == {"completed"}


@pytest.mark.usefixtures("committed")
def test_a_claim_of_a_locked_row_is_told_to_come_again() -> None:
    """At once, as of a request; and once the batch is done, it is a first request."""
    put_expired(PAUSED)

    with threads() as start, paused_deletes("BEFORE ROW") as go_on:
        purging = start(purge)
        eventually(lambda: waiting_for_a_lock() == 1)

        with pytest.raises(exceptions.RequestInProgress):
            start(succeed, claim(PAUSED)).result(DEADLINE)

        go_on()
        assert purging.result().rows == 1
    assert succeed(claim(PAUSED)).number == 1


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_claim_of_a_deleted_row_is_a_first_request(isolation: str) -> None:
    """It waits for the few milliseconds until the batch is committed."""
    put_expired(PAUSED)

    def claim_it() -> claims.Attempt:
        isolate(isolation)
        return succeed(claim(PAUSED))

    def purge_it() -> Purged:
        isolate("READ COMMITTED")  # two that are SERIALIZABLE may conflict, which is a 409
        return purge()

    with threads() as start, paused_deletes("AFTER ROW") as go_on:
        purging = start(purge_it)
        eventually(lambda: waiting_for_a_lock() == 1)
        claiming = start(claim_it)
        eventually(lambda: waiting_for_a_lock() == 2)

        go_on()
        assert purging.result() == Purged(1, is_complete=True)
        assert claiming.result().number == 1
    assert row(claim(PAUSED)).status == "completed"


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_key_taken_over_under_the_eyes_of_a_batch_lives(isolation: str) -> None:
    """The batch saw it expired, but looks again under the lock, or starts anew."""
    put_expired("a", "b")

    def purge_isolated() -> Purged:
        isolate(isolation)
        return purge()

    with threads() as start, paused_deletes("BEFORE STATEMENT") as go_on:
        purging = start(purge_isolated)
        eventually(lambda: waiting_for_a_lock() == 1)
        start(succeed, claim("a")).result(DEADLINE)

        go_on()
        assert purging.result() == Purged(1, is_complete=True)
    assert row(claim("a")).status == "completed"


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_purges_and_claims_at_once(isolation: str) -> None:
    """Every claimed key ends with its answer, every other one is gone, and none fails."""
    every = [str(number) for number in range(300)]
    claimed = every[::5]
    put_expired(*every)
    barrier = threading.Barrier(6)

    def purge_all() -> int:
        isolate(isolation)
        barrier.wait(DEADLINE)
        return purge(batch_size=7).rows

    def claim_share(number: int) -> None:
        isolate(isolation)
        barrier.wait(DEADLINE)
        for key in claimed[number::3]:
            eventually(partial(claim_once, key))

    with threads() as start:
        purging = [start(purge_all) for _ in range(3)]
        claiming = [start(claim_share, number) for number in range(3)]
        for future in claiming:
            future.result()
        deleted = sum(future.result() for future in purging)

    assert purge().rows == 0
    assert keys() == sorted(claimed)
    assert {key.status for key in IdempotencyKey.objects.all()} == {"completed"}
    assert len(every) - len(claimed) <= deleted <= len(every)
    assert Purge.objects.aggregate(Sum("rows")) == {"rows__sum": deleted}


def claim_once(key: str) -> bool:
    """Claim as a client does, who comes again when told to: 409, or 503 after a conflict."""
    try:
        succeed(claim(key))
    except exceptions.RequestInProgress:
        return False
    except OperationalError as error:
        if not database.is_conflict(error):
            raise
        return False
    return True


@pytest.mark.usefixtures("committed")
def test_a_connection_lost_between_batches_loses_no_count() -> None:
    """The purge fails; the record says what was deleted and not that it ended; the next goes on."""
    put_expired(*"abcde")

    with threads() as start:

        def cut(_rows: int) -> None:
            start(terminate, connection.connection.info.backend_pid).result()

        def purge_until_cut() -> None:
            keep_session()  # PgBouncer would give the next batch another one
            purge(batch_size=2, on_batch=cut)

        with pytest.raises((DatabaseError, InterfaceError)):
            start(purge_until_cut).result()

    record = Purge.objects.get()
    assert (record.rows, record.ended_at, record.is_complete) == (2, None, False)
    assert keys() == ["c", "d", "e"]
    assert purge() == Purged(3, is_complete=True)


def terminate(pid: int) -> None:
    """Cut a connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
