"""The heart on its own: what is committed when, and who may write what after whom."""

import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from conftest import MakeDoor
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from psycopg import IsolationLevel
from support import (
    backend_pid,
    eventually,
    isolate,
    keep_session,
    session,
    threads,
    unreachable_database,
    waiting_for_a_lock,
)

from idempotency import claims, database, exceptions, statements
from idempotency.answers import Answer
from idempotency.models import IdempotencyKey
from testproject.shop.models import Account

ANSWER = Answer(201, (("A", "b"), ("A", "c")), b"\x00\xff")


def claim(key: str = "", **values: Any) -> claims.Claim:
    """Give a claim to a key, a fresh one by default."""
    defaults: dict[str, Any] = {
        "scope": "user:1",
        "key": key or str(uuid.uuid4()),
        "fingerprints": (b"1" * 33,),
        "operation": "POST work/",
        "ttl": timedelta(hours=1),
    }
    return claims.Claim(**defaults | values)


def row(of: claims.Claim) -> IdempotencyKey:
    """Give the row of a claim."""
    return IdempotencyKey.objects.get(scope=of.scope, key=of.key)


def succeed(mine: claims.Claim, answer: Answer = ANSWER) -> claims.Attempt:
    """Make an attempt that is completed."""
    with claims.attempt(mine) as attempt:
        assert isinstance(attempt, claims.Attempt)
        claims.complete(attempt, answer)
    return attempt


def abandon(mine: claims.Claim) -> claims.Attempt:
    """Make an attempt whose transaction is rolled back."""
    with claims.attempt(mine) as attempt:
        assert isinstance(attempt, claims.Attempt)
        claims.roll_back()
    return attempt


@pytest.mark.usefixtures("committed")
def test_the_answer_is_stored_as_it_was() -> None:
    """Status, headers with repetition and order, and bytes come back the same."""
    mine = claim()
    succeed(mine)

    with claims.attempt(mine) as answer:
        assert answer == ANSWER


@pytest.mark.usefixtures("committed")
def test_a_body_that_was_not_kept_is_told_from_an_empty_one() -> None:
    """NULL is not b""."""
    for body in (None, b""):
        mine = claim()
        succeed(mine, Answer(204, (), body))
        with claims.attempt(mine) as answer:
            assert isinstance(answer, Answer)
            assert answer.body == body


@pytest.mark.usefixtures("committed")
def test_the_claim_is_committed_before_the_attempt_runs() -> None:
    """Others see it at once; whether somebody is at it, only the lock says."""
    mine = claim()

    with threads() as start, claims.attempt(mine) as attempt:
        seen = start(row, mine).result()
        assert (seen.status, seen.attempts, seen.operation) == ("in_progress", 1, "POST work/")
        assert bytes(seen.fingerprint) == b"1" * 33
        assert isinstance(attempt, claims.Attempt)
        claims.roll_back()


def test_an_answer_and_its_effects_are_committed_together(alice: Account) -> None:
    """Until the answer is saved nobody sees the effects; then all see both at once."""
    mine = claim()

    def seen() -> tuple[str, Decimal]:
        return row(mine).status, Account.objects.get(pk=alice.pk).balance

    with threads() as start:
        with claims.attempt(mine) as attempt:
            assert isinstance(attempt, claims.Attempt)
            Account.objects.update(balance=1)
            assert start(seen).result() == ("in_progress", 1000)
            claims.complete(attempt, ANSWER)
        assert start(seen).result() == ("completed", 1)


def bind(monkeypatch: pytest.MonkeyPatch, *, by_server: bool) -> None:
    """Say who puts parameters into statements, for connections of threads that start from now."""
    options = connection.settings_dict["OPTIONS"] | {"server_side_binding": by_server}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)


@pytest.mark.usefixtures("committed")
def test_the_answer_travels_with_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving and committing are one round trip: the commit that Django asks for sends nothing."""
    mine = claim()
    bind(monkeypatch, by_server=False)

    with threads() as start:

        def answer() -> None:
            with claims.attempt(mine) as attempt:
                assert isinstance(attempt, claims.Attempt)
                claims.complete(attempt, ANSWER)
                assert start(row, mine).result().status == "completed"

        start(answer).result()


@pytest.mark.usefixtures("committed")
def test_statements_travel_together_where_binding_is_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parameters of the protocol's own would let each go alone, so ours are put into the SQL."""
    mine = claim()
    bind(monkeypatch, by_server=True)

    def answered() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            succeed(mine)
        return words(queries)

    with threads() as start:
        assert start(answered).result() == [
            *("SELECT", "BEGIN", "BEGIN; INSERT; COMMIT AND CHAIN; SELECT"),
            *("WITH; COMMIT", "COMMIT"),
        ]
    assert row(mine).status == "completed"


def words(queries: CaptureQueriesContext) -> list[str]:
    """Give what was sent: each message's statements by their first words."""
    sent = [[sql.split() for sql in query["sql"].split(";")] for query in queries]
    return [
        "; ".join(" ".join(sql) if sql[0] == "COMMIT" else sql[0] for sql in message)
        for message in sent
    ]


@pytest.mark.usefixtures("committed")
def test_the_claim_waits_for_no_fsync() -> None:
    """After some claim the log is ahead of the disk, which a synchronous commit never leaves."""

    def is_ahead() -> bool:
        abandon(claim())
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")
            return bool(cursor.fetchone()[0])

    assert any(is_ahead() for _ in range(50))
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone()[0] == "on"


@pytest.mark.usefixtures("committed")
def test_the_statements_of_each_outcome(
    make_function_door: MakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message is added to a first request, two are BEGIN's and COMMIT's; a replay is one.

    Django logs a BEGIN and a COMMIT of its own, but sends neither.
    """
    plain = HttpResponse(content_type="text/plain")
    door = make_function_door(lambda request: plain, scope=lambda request: "partner:1")

    def sent() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            door()
        return words(queries)

    bind(monkeypatch, by_server=False)
    claim_and_lock = "BEGIN; INSERT; COMMIT AND CHAIN; SELECT"
    with threads() as start:
        first = start(sent).result()
        assert first == ["SELECT", "BEGIN", claim_and_lock, "WITH; COMMIT", "COMMIT"]
        assert start(sent).result() == ["SELECT"]

        door.key = "another"
        with claims.attempt(claim(door.key, scope="partner:1", fingerprints=fingerprint_of(door))):
            assert start(sent).result() == ["SELECT", "BEGIN", "BEGIN; SELECT", "ROLLBACK"]
            claims.roll_back()


@pytest.mark.usefixtures("committed")
def test_the_transaction_is_one_that_django_knows() -> None:
    """It has the connection's isolation, cursors end with it, and then autocommit is on again."""
    Account.objects.create(user=User.objects.create(username="Ann"), token="ann", balance=1)

    def run() -> bool:
        keep_session()
        connection.ensure_connection()
        connection.connection.isolation_level = IsolationLevel.REPEATABLE_READ  # as OPTIONS does
        with claims.attempt(claim()) as attempt:
            assert isinstance(attempt, claims.Attempt)
            with connection.cursor() as cursor:
                cursor.execute("SHOW transaction_isolation")
                assert cursor.fetchone() == ("repeatable read",)
            # A cursor that PostgreSQL keeps after the transaction could not lock rows.
            assert len(list(Account.objects.select_for_update().iterator())) == 1
            claims.complete(attempt, ANSWER)
        return connection.get_autocommit() and connection.connection.autocommit

    with threads() as start:
        assert start(run).result()


def fingerprint_of(door: Any) -> tuple[bytes, ...]:
    """Give the fingerprint of a door's request, as its row has it."""
    return tuple(bytes(f) for f in IdempotencyKey.objects.values_list("fingerprint", flat=True))


@pytest.mark.usefixtures("committed")
def test_somebody_elses_attempt_is_told_at_once() -> None:
    """A running attempt is 409 for the same request and 422 for another, without waiting."""
    mine = claim()

    def collide(other: claims.Claim) -> None:
        with claims.attempt(other):
            raise AssertionError

    with threads() as start:
        with claims.attempt(mine):
            with pytest.raises(exceptions.RequestInProgress):
                start(collide, mine).result()
            with pytest.raises(exceptions.KeyReused):
                start(collide, claim(mine.key, fingerprints=(b"2" * 33,))).result()
            claims.roll_back()
    assert row(mine).attempts == 1


@pytest.mark.usefixtures("committed")
def test_any_of_the_fingerprints_matches() -> None:
    """A row written under an old secret is recognised; the current one is written."""
    mine = claim(fingerprints=(b"1" * 33,))
    succeed(mine)

    with claims.attempt(claim(mine.key, fingerprints=(b"2" * 33, b"1" * 33))) as answer:
        assert answer == ANSWER
    with pytest.raises(exceptions.KeyReused), claims.attempt(claim(mine.key, fingerprints=(b"",))):
        raise AssertionError


@pytest.mark.usefixtures("committed")
def test_a_worker_that_died_after_its_claim_blocks_nobody() -> None:
    """A claim without a lock is free: the retry is the next attempt, at once."""
    mine = claim()
    with threads() as start, claims.attempt(mine):
        victim = backend_pid()

        def terminate() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [victim])

        start(terminate).result()
        connection.close()
        attempt = start(succeed, mine).result()

    assert attempt.number == 2
    assert (row(mine).status, row(mine).attempts) == ("completed", 2)


def fail(mine: claims.Claim) -> claims.Attempt:
    """Make an attempt that fails and is recorded."""
    attempt = abandon(mine)
    claims.fail(attempt, "ZeroDivisionError")
    return attempt


@pytest.mark.usefixtures("committed")
def test_a_row_committed_under_the_claims_eyes_is_read() -> None:
    """The claim waits for the other insert, sees neither row, and looks again."""
    mine = claim()

    def collide() -> None:
        with claims.attempt(mine):
            raise AssertionError

    with threads() as start:
        with transaction.atomic():
            IdempotencyKey.objects.create(
                scope=mine.scope,
                key=mine.key,
                fingerprint=b"2" * 33,
                expires_at=Now() + timedelta(hours=1),
            )
            other = start(collide)
            eventually(lambda: waiting_for_a_lock() == 1)
        with pytest.raises(exceptions.KeyReused):
            other.result()


@pytest.mark.usefixtures("committed")
def test_attempts_are_counted() -> None:
    """Each that ended, and the first even where its worker died."""
    mine = claim()

    assert [fail(mine).number for _ in range(3)] == [1, 2, 3]
    assert (row(mine).attempts, row(mine).last_error) == (3, "ZeroDivisionError")
    assert succeed(mine).number == 4
    assert row(mine).attempts == 4


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("outcome", [succeed, fail])
def test_another_may_be_faster_between_claim_and_lock(
    monkeypatch: pytest.MonkeyPatch, outcome: Any
) -> None:
    """Who claimed first but locks second finds the other's answer, or is the next attempt."""
    mine = claim()
    pause = "SELECT pg_advisory_xact_lock_shared(1)"
    monkeypatch.setattr(statements, "COMMIT_CLAIM", f"{statements.COMMIT_CLAIM}; {pause}")

    def come_second() -> claims.Attempt | Answer:
        with claims.attempt(mine) as found:
            if isinstance(found, claims.Attempt):
                claims.roll_back()
        return found

    with threads() as start, session() as gate:
        gate.execute("SELECT pg_advisory_lock(1)")
        second = start(come_second)
        eventually(lambda: waiting_for_a_lock() == 1)
        assert start(outcome, mine).result().number == 2
        gate.execute("SELECT pg_advisory_unlock(1)")
        found = second.result()

    if outcome is succeed:
        assert found == ANSWER
    else:
        assert isinstance(found, claims.Attempt)
        assert found.number == 3


@pytest.mark.usefixtures("committed")
def test_an_expired_key_is_taken_over_by_one_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds it expired, but taken over by another meanwhile, finds the other's request."""
    mine = claim()
    abandon(mine)
    IdempotencyKey.objects.update(created_at="2026-01-01T00:00Z", expires_at="2026-01-02T00:00Z")
    lock = claims._lock

    with threads() as start:

        def lock_late(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(claims, "_lock", lock)
            start(succeed, claim(mine.key, fingerprints=(b"2" * 33,))).result()
            return lock(*args, **options)

        monkeypatch.setattr(claims, "_lock", lock_late)
        with pytest.raises(exceptions.KeyReused), claims.attempt(mine):
            raise AssertionError


@pytest.mark.usefixtures("committed")
def test_a_late_answer_of_a_rolled_back_attempt_is_refused() -> None:
    """Once another attempt has begun, or completed, only its answer counts."""
    mine = claim()
    first = abandon(mine)
    second = fail(mine)

    with pytest.raises(exceptions.RequestInProgress):
        claims.keep(first, Answer(402, (), b"first"))
    claims.fail(first, "Late")
    assert row(mine).last_error == "ZeroDivisionError"

    third = abandon(mine)
    assert second.number == third.recorded == 2
    claims.keep(third, Answer(402, (), b"third"))
    with pytest.raises(exceptions.RequestInProgress):
        claims.keep(third, Answer(402, (), b"again"))
    assert (row(mine).attempts, bytes(row(mine).body or b"")) == (3, b"third")


@pytest.mark.usefixtures("committed")
def test_a_late_answer_while_another_attempt_runs_is_refused() -> None:
    """It does not wait for the other attempt to end."""
    mine = claim()
    first = abandon(mine)

    with threads() as start, claims.attempt(mine) as second:
        assert isinstance(second, claims.Attempt)
        with pytest.raises(exceptions.RequestInProgress):
            start(claims.keep, first, ANSWER).result()
        start(claims.fail, first, "Late").result()
        with pytest.raises(exceptions.RequestInProgress):
            start(claims.keep, second, ANSWER).result()
        claims.roll_back()


@pytest.mark.usefixtures("committed")
def test_a_late_answer_of_an_earlier_life_is_refused() -> None:
    """After the key expired and was taken over, number 1 is another number 1."""
    mine = claim()
    first = abandon(mine)
    IdempotencyKey.objects.update(created_at="2026-01-01T00:00Z", expires_at="2026-01-02T00:00Z")
    assert abandon(mine).number == 1

    with pytest.raises(exceptions.RequestInProgress):
        claims.keep(first, ANSWER)


@pytest.mark.usefixtures("committed")
def test_a_key_that_expires_under_a_running_attempt_is_not_run_twice() -> None:
    """Expired or not, a locked row has somebody at it."""
    mine = claim(ttl=timedelta(microseconds=1))

    with threads() as start, claims.attempt(mine) as attempt:
        assert isinstance(attempt, claims.Attempt)
        with pytest.raises(exceptions.RequestInProgress):
            start(succeed, mine).result()
        claims.complete(attempt, ANSWER)
    assert row(mine).status == "completed"


@pytest.mark.usefixtures("committed")
def test_waiting_ends_with_the_holder() -> None:
    """All who wait are let go together, and find the answer."""
    mine = claim()

    def wait_for_answer() -> Any:
        with claims.attempt(mine, wait=30) as answer:
            return answer

    with threads() as start:
        with claims.attempt(mine) as attempt:
            assert isinstance(attempt, claims.Attempt)
            waiters = [start(wait_for_answer) for _ in range(5)]
            eventually(lambda: waiting_for_a_lock() == 5)
            claims.complete(attempt, ANSWER)
        assert [waiter.result() for waiter in waiters] == [ANSWER] * 5


@pytest.mark.usefixtures("committed")
def test_one_of_those_who_wait_takes_over_from_a_failed_attempt() -> None:
    """The others wait on, and find its answer; the wait leaves no time-out behind."""
    mine = claim()
    ran: list[str] = []

    def wait_and_run() -> Any:
        with claims.attempt(mine, wait=30) as attempt:
            if isinstance(attempt, claims.Attempt):
                with connection.cursor() as cursor:
                    cursor.execute("SHOW lock_timeout")
                    ran.append(cursor.fetchone()[0])
                claims.complete(attempt, ANSWER)
            return attempt

    with threads() as start:
        with claims.attempt(mine):
            waiters = [start(wait_and_run) for _ in range(5)]
            eventually(lambda: waiting_for_a_lock() == 5)
            claims.roll_back()
        results = [waiter.result() for waiter in waiters]

    assert ran == ["0"]
    assert results.count(ANSWER) == 4


@pytest.mark.usefixtures("committed")
def test_waiting_is_bounded() -> None:
    """A holder that never ends costs those who wait their time, and no more."""
    mine = claim()

    def wait_in_vain() -> None:
        with claims.attempt(mine, wait=0.05):
            raise AssertionError

    with threads() as start, claims.attempt(mine):
        with pytest.raises(exceptions.RequestInProgress):
            start(wait_in_vain).result()
        claims.roll_back()


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_waiting_under_higher_isolation(isolation: str) -> None:
    """There the end of the wait is a conflict; it is an end all the same."""
    mine = claim()

    def wait_for_answer() -> Any:
        isolate(isolation)
        with claims.attempt(mine, wait=30) as answer:
            return answer

    with threads() as start:
        with claims.attempt(mine) as attempt:
            assert isinstance(attempt, claims.Attempt)
            waiter = start(wait_for_answer)
            eventually(lambda: waiting_for_a_lock() == 1)
            claims.complete(attempt, ANSWER)
        assert waiter.result() == ANSWER


@pytest.mark.usefixtures("committed")
def test_a_connection_lost_while_waiting_is_unavailable() -> None:
    """The caller learns that nothing ran."""
    mine = claim()

    def wait_in_vain() -> None:
        with claims.attempt(mine, wait=30):
            raise AssertionError

    with threads() as start, claims.attempt(mine):
        waiter = start(wait_in_vain)
        eventually(lambda: waiting_for_a_lock() == 1)
        start(terminate_those_who_wait).result()
        with pytest.raises(exceptions.StoreUnavailable):
            waiter.result()
        claims.roll_back()


def terminate_those_who_wait() -> None:
    """Cut the connections that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )


@pytest.mark.usefixtures("committed")
def test_a_conflict_at_the_row_is_somebody_elses_attempt() -> None:
    """Under higher isolation PostgreSQL reports a race for the row as a serialization failure."""
    with pytest.raises(exceptions.RequestInProgress), database.reachable(), transaction.atomic():
        raise_sqlstate("40001")
    with pytest.raises(exceptions.StoreUnavailable), database.reachable(), transaction.atomic():
        raise_sqlstate("57P01")


def raise_sqlstate(sqlstate: str) -> None:
    """Let PostgreSQL raise an error."""
    with connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$")


@pytest.mark.usefixtures("committed")
def test_a_failure_that_cannot_be_recorded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing depends on the record, so its loss is a warning."""
    attempt = abandon(claim())
    with unreachable_database():
        claims.fail(attempt, "ZeroDivisionError")

    assert "Could not record how an attempt ended: ZeroDivisionError" in caplog.text


@pytest.mark.usefixtures("committed")
def test_a_late_answer_needs_the_store() -> None:
    """Where it cannot be kept the client is asked to come again."""
    attempt = abandon(claim())
    with unreachable_database():
        with pytest.raises(exceptions.StoreUnavailable):
            claims.keep(attempt, ANSWER)


# The row


GOOD: dict[str, Any] = {
    "scope": "user:1",
    "key": "k",
    "fingerprint": b"1" * 33,
    "operation": "POST /",
    "expires_at": Now() + timedelta(hours=1),
}
DONE: dict[str, Any] = {
    "status": "completed",
    "status_code": 200,
    "completed_at": Now(),
    "headers": [],
}


@pytest.mark.django_db
@pytest.mark.parametrize("values", [{}, DONE, DONE | {"body": b""}, {"scope": "ü" * 255}])
def test_rows_that_can_be(values: dict[str, Any]) -> None:
    """In progress without an answer, completed with one, with or without a body."""
    IdempotencyKey.objects.create(**GOOD | values)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "values",
    [
        {"id": uuid.UUID(int=1)},
        {"scope": ""},
        {"key": ""},
        {"key": "ü"},
        {"key": "a\nb"},
        {"attempts": 0},
        {"expires_at": Now()},
        {"status": "running"},
        {"status_code": 200},
        {"headers": []},
        {"body": b""},
        {"completed_at": Now()},
        {"status": "completed"},
        DONE | {"status_code": None},
        DONE | {"status_code": 600},
        DONE | {"completed_at": None},
        DONE | {"headers": None},
    ],
    ids=str,
)
def test_rows_that_must_never_be(values: dict[str, Any]) -> None:
    """The database refuses them, whoever writes."""
    with pytest.raises(IntegrityError), transaction.atomic():
        IdempotencyKey.objects.create(**GOOD | values)


@pytest.mark.django_db
def test_scope_and_key_are_unique_together() -> None:
    """The primary key is their digest, and the database holds it to that."""
    IdempotencyKey.objects.create(**GOOD)
    with pytest.raises(IntegrityError), transaction.atomic():
        IdempotencyKey.objects.create(**GOOD)

    IdempotencyKey.objects.create(**GOOD | {"scope": "user:2"})
    IdempotencyKey.objects.bulk_create([IdempotencyKey(**GOOD | {"scope": "user:1k", "key": "x"})])
    assert IdempotencyKey.objects.count() == 3


@pytest.mark.django_db
def test_expired_keys_are_those_past_their_time() -> None:
    """By the clock of the database."""
    old = IdempotencyKey.objects.create(
        **GOOD | {"created_at": "2026-01-01T00:00Z", "expires_at": "2026-01-02T00:00Z"}
    )
    IdempotencyKey.objects.create(**GOOD | {"key": "other"})

    assert list(IdempotencyKey.objects.expired()) == [old]
    assert str(old) == "k of user:1"
