"""The protocol as a model whose sentences are checked against the real database, step by step.

Hypothesis lets a few workers claim, write, answer, fail, die and be too late, in any order it can
think of, while keys expire and are purged. What breaks a sentence is shrunk to a short story.
"""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connection, connections, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run
from support import backend_pid

from idempotency import claims, exceptions
from idempotency.answers import Answer
from idempotency.models import IdempotencyKey
from testproject.shop.models import Account, Payment
from testproject.shop.seed import seed

pytestmark = pytest.mark.slow

KEYS = ["first", "first", "first", "second"]
WORKERS = 3
LONG, SHORT = timedelta(hours=1), timedelta(microseconds=1)


@dataclass
class Row:
    """What the model knows of a committed row."""

    fingerprint: bytes
    is_expired: bool
    life: str
    """Names one life of the key; effects of two lives are two purchases, of one life never."""
    attempts: int = 1
    answer: Answer | None = None
    holder: Any = None
    """The `Worker` that has its lock."""


@dataclass
class Worker:
    """One worker of the server: a thread with its connection, and what it is in the middle of."""

    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    key: str = ""
    """The key it holds the lock of, if any."""
    context: AbstractContextManager[Any] | None = None
    attempt: claims.Attempt | None = None
    """The attempt it makes, or has rolled back and not told the end of."""
    wrote: bool = False
    life: str = ""

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a step on the worker's own connection."""
        return self.thread.submit(function, *args).result()

    def enter(self, claim: claims.Claim) -> claims.Attempt | Answer:
        """Open the block of an attempt; an answer closes it again."""
        context = claims.attempt(claim)
        got = context.__enter__()
        if isinstance(got, Answer):
            context.__exit__(None, None, None)
        else:
            self.context = context
        return got

    def leave(self) -> None:
        """Close the block."""
        assert self.context is not None
        context, self.context = self.context, None
        context.__exit__(None, None, None)

    def forget(self) -> None:
        """Be idle."""
        self.key, self.attempt, self.wrote, self.life = "", None, False, ""


def is_idle(worker: Worker) -> bool:
    """It can take a request."""
    return worker.attempt is None


def is_running(worker: Worker) -> bool:
    """It is in the middle of a view."""
    return worker.context is not None


def is_late(worker: Worker) -> bool:
    """It has rolled back, and not told the end."""
    return worker.attempt is not None and worker.context is None


def of(state: Callable[[Worker], bool]) -> Callable[[Any], Any]:
    """Let a rule act only where a worker is in a state; `Protocol.one` says which one."""
    return precondition(lambda self: any(map(state, self.workers)))


class Protocol(RuleBasedStateMachine):
    """The sentences of the protocol. What a rule expects is computed from ``rows`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.account: Account = seed()[0]
        self.workers = [Worker() for _ in range(WORKERS)]
        self.rows: dict[str, Row] = {}
        self.effects: dict[str, int] = {}
        """How many purchases were committed, by life."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            self.is_serializable = cursor.fetchone() == ("serializable",)

    def one(self, data: st.DataObject, state: Callable[[Worker], bool]) -> Worker:
        """Draw a worker that is in a state."""
        return data.draw(st.sampled_from([it for it in self.workers if state(it)]))

    def is_clear(self) -> bool:
        """Tell whether a step may write.

        At SERIALIZABLE PostgreSQL gives up one of two transactions that have read and written the
        same page, whatever their rows are; what comes of it depends on the plan and on the page,
        of which the model knows nothing. So nobody writes there while a view runs but the view.
        """
        return not (self.is_serializable and any(map(is_running, self.workers)))

    def teardown(self) -> None:
        for worker in self.workers:
            if worker.context:
                worker.do(claims.roll_back)
                worker.do(worker.leave)
            worker.do(connections.close_all)
            worker.thread.shutdown()
        for model in (IdempotencyKey, Payment):
            model._default_manager.all().delete()

    @of(is_idle)
    @rule(
        data=st.data(),
        key=st.sampled_from(KEYS),
        fingerprint=st.sampled_from([b"a" * 33, b"a" * 33, b"b" * 33]),
        ttl=st.sampled_from([LONG, SHORT]),
    )
    def request(self, data: st.DataObject, key: str, fingerprint: bytes, ttl: timedelta) -> None:
        """A request arrives at a worker that has nothing to do."""
        worker, row = self.one(data, is_idle), self.rows.get(key)
        claim = claims.Claim("user:1", key, (fingerprint,), "POST work/", ttl)
        if row and row.holder is not None:
            # Another fingerprint goes before "running", but an expired key has none any more.
            is_reused = not row.is_expired and row.fingerprint != fingerprint
            error = exceptions.KeyReused if is_reused else exceptions.RequestInProgress
            with pytest.raises(error):
                worker.do(worker.enter, claim)
            return
        if row and not row.is_expired and row.fingerprint != fingerprint:
            with pytest.raises(exceptions.KeyReused):
                worker.do(worker.enter, claim)
            return
        is_answered = row and not row.is_expired and row.answer
        if not is_answered and not self.is_clear():
            return

        got = worker.do(worker.enter, claim)

        if row and is_answered:
            assert got == row.answer
            return
        assert isinstance(got, claims.Attempt)
        if row and not row.is_expired:
            assert got.number == row.attempts + 1
        else:
            assert got.number == 1
            row = self.rows[key] = Row(fingerprint, ttl == SHORT, str(uuid.uuid4())[:30])
        row.holder = worker
        worker.key, worker.attempt, worker.life = key, got, row.life

    @of(is_running)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """The view writes, once."""
        worker = self.one(data, is_running)
        if not worker.wrote:
            payment = Payment(account=self.account, amount=1, currency="EUR", card=worker.life)
            worker.do(payment.save)
            worker.wrote = True

    @of(is_running)
    @rule(data=st.data(), how=st.sampled_from(["complete", "roll_back", "roll_back", "die"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """A view ends, most often badly: an answer leaves little to try."""
        getattr(self, how)(self.one(data, is_running))

    def complete(self, worker: Worker) -> None:
        """The view answers: answer and effects are committed together."""
        row, answer = self.rows[worker.key], Answer(201, (), uuid.uuid4().bytes)
        worker.do(claims.complete, worker.attempt, answer)
        worker.do(worker.leave)
        assert worker.attempt
        row.answer, row.holder, row.attempts = answer, None, worker.attempt.number
        self.effects[row.life] = self.effects.get(row.life, 0) + worker.wrote
        worker.forget()

    def roll_back(self, worker: Worker) -> None:
        """The view fails: nothing of it stays, and the lock is free before the end is recorded."""
        worker.do(claims.roll_back)
        worker.do(worker.leave)
        self.rows[worker.key].holder = None

    @of(is_late)
    @rule(data=st.data(), is_kept=st.sampled_from([True, False, False]))
    def record(self, data: st.DataObject, is_kept: bool) -> None:
        """The end of a failed attempt is recorded, unless somebody else came in between."""
        worker = self.one(data, is_late)
        assert worker.attempt
        row = self.rows.get(worker.key)
        owns = (
            row is not None
            and row.life == worker.life
            and row.holder is None
            and row.answer is None
            and row.attempts == worker.attempt.recorded
        )
        if owns and not self.is_clear():
            return
        answer = Answer(402, (("A", "b"),), uuid.uuid4().bytes)
        if not is_kept:
            worker.do(claims.fail, worker.attempt, "Boom")
        elif owns:
            worker.do(claims.keep, worker.attempt, answer)
        else:
            with pytest.raises(exceptions.RequestInProgress):
                worker.do(claims.keep, worker.attempt, answer)
        if owns and row:
            row.attempts = worker.attempt.number
            row.answer = answer if is_kept else None
        worker.forget()

    def die(self, worker: Worker) -> None:
        """A worker loses its connection, and with it the lock; nobody cleans up after it."""
        pid = worker.do(backend_pid)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])

        def vanish() -> None:
            with suppress(DatabaseError, InterfaceError):
                claims.roll_back()
                worker.leave()
            connection.close()

        worker.do(vanish)
        self.rows[worker.key].holder = None
        worker.forget()

    @precondition(lambda self: self.is_clear() and any(it.is_expired for it in self.rows.values()))
    @rule()
    def purge(self) -> None:
        """Expired rows are removed, but for those that somebody holds."""
        IdempotencyKey.objects.purge()
        self.rows = {
            key: row
            for key, row in self.rows.items()
            if not row.is_expired or row.holder is not None
        }

    @invariant()
    def the_rows_are_what_the_model_says(self) -> None:
        """Status, attempts, answer; and the lock, as others see it."""
        found = {row.key: row for row in IdempotencyKey.objects.with_running()}
        assert found.keys() == self.rows.keys()
        for key, row in self.rows.items():
            assert bytes(found[key].fingerprint) == row.fingerprint
            assert found[key].attempts == row.attempts
            assert found[key].is_running == (row.holder is not None)
            assert (found[key].status == "completed") == (row.answer is not None)
            if row.answer:
                body = found[key].body
                assert body is not None
                assert bytes(body) == row.answer.body

    @invariant()
    def effects_happen_once(self) -> None:
        """A life of a key has at most one purchase, and one only together with its answer."""
        lives = Payment.objects.values_list("card", flat=True)
        assert len(lives) == len(set(lives))
        assert set(lives) == {life for life, count in self.effects.items() if count}


@pytest.mark.usefixtures("committed")
def test_the_protocol() -> None:
    """Whatever happens in whatever order, the sentences hold."""
    run(
        Protocol,
        settings=settings(
            max_examples=50,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
