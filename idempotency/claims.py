"""The heart: the claim, the lock and the answer. The only room that opens the transaction.

Knows no HTTP: it takes a scope, a key and fingerprints, and gives back an attempt or an answer.

Note [The row is the lock]
A committed row says only that somebody tried. Whoever holds its row lock is trying now, and loses
the lock with the connection, however the worker ends. So every statement that takes a row says
SKIP LOCKED, and nothing here ever asks how old a row is to tell whether its worker is alive.

Note [The fence]
A rollback costs an attempt its lock. What it writes after that, its answer or the record of its
failure, must find the row as it left it: free, without an answer, in the same life of the key
(``created_at``) and with no other attempt recorded since (``attempts``).
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    DataError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from django.db.transaction import (
    TransactionManagementError,
    atomic,
    get_connection,
    get_rollback,
    set_rollback,
)

from . import answers, database, statements
from .answers import Answer
from .digests import digest
from .exceptions import (
    KeyReused,
    OutcomeUnknown,
    RequestInProgress,
    StoreUnavailable,
    TooManyKeys,
)
from .models import IdempotencyKey
from .signals import Stopwatch

logger = logging.getLogger("idempotency")

_TIMED_OUT = {"55P03", "57014"}
_DIVISION_BY_ZERO = "22012"
"""SQLSTATEs: lock time-out and cancelled statement; and what ``statements.COMPLETE`` and
``statements.CLAIM`` raise on purpose."""

_COURTESY = 0.05
"""Seconds. Nothing depends on it but how often a refused view runs once more."""


_USEFUL = timedelta(hours=1)
"""How long a response is kept at least, or for the key's whole time to live where that is shorter.
A retry that has waited, or was told to come back, must find it, however late it came."""

_NEARLY = 0.9
"""As much of `_USEFUL` as is left of a short time to live when an ordinary view has run."""


@dataclass(frozen=True)
class Claim:
    """What a request lays claim to."""

    scope: str
    key: str
    fingerprints: tuple[bytes, ...]
    """The one to write first; a row with any of them is this request's."""
    operation: str
    ttl: timedelta
    most: int | None = None
    """How many keys of the scope may live for this one to be claimed; None for any number."""
    users: str | None = None
    """The table of users that must lie in the schema of the keys; None where the scope names the
    tenant, or there is no such table."""

    @property
    def room(self) -> tuple[str, int, int] | tuple[()]:
        """Values of the condition that there is room for the key, where it needs any."""
        return () if self.most is None else (self.scope, self.most, self.most)

    @cached_property
    def id(self) -> UUID:
        """Primary key of the row."""
        return digest(self.scope, self.key)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a view, which holds the row's lock until its transaction ends."""

    id: UUID
    """Primary key of the row."""
    scope: str
    key: str
    number: int
    """1 for the first attempt at this key; see `IdempotencyKey.attempts`."""
    first_seen: str
    """When the key was first seen, as PostgreSQL writes it: with the offset, so never ambiguous."""
    recorded: int
    """The number that the row shows while this attempt runs."""
    transaction: str
    """PostgreSQL's id of the transaction that holds the lock."""
    depth: int
    """How many savepoints there are when the view begins: 0, but in a TestCase."""
    ttl: timedelta
    """How long keys live."""

    @property
    def useful(self) -> timedelta:
        """How long a response must be there after it came."""
        return min(self.ttl, _USEFUL)

    @property
    def fence(self) -> tuple[UUID, str, int]:
        """See Note [The fence]."""
        return self.id, self.first_seen, self.recorded


class _Standing(NamedTuple):
    """What a look at the row tells, in the order of ``statements.READ``'s columns."""

    is_expired: bool
    fingerprint: bytes
    status: str
    status_code: int | None
    headers: str | None
    body: bytes | None
    trace: bytes
    is_own: bool
    """Whether the table lies in the schema of the users' table."""
    is_awaited: bool
    """Whether commits wait for a synchronous standby."""
    looked_at: str
    """When, as PostgreSQL writes it."""


class _Locked(NamedTuple):
    """The row under our lock, in the order of ``statements.LOCK``'s columns."""

    created_at: str
    attempts: int
    status: str
    fingerprint: bytes
    is_expired: bool
    transaction: str


@contextmanager
def attempt(
    claim: Claim, *, wait: float = 0, waiting: Stopwatch | None = None
) -> Iterator[Attempt | Answer]:
    """Give the key's answer if it has one; else open the transaction for an attempt at it.

    The block is the transaction. Leave it after `complete`, which commits; or after `roll_back` or
    with an exception, to roll back.

    Args:
        wait: Most seconds to wait for somebody else's attempt to end.
        waiting: Takes the time of that.

    Raises:
        KeyReused: The key stands for another request.
        RequestInProgress: Somebody else's attempt is running.
        TooManyKeys: The scope has as many keys as it may have, and this is none of them.
        StoreUnavailable: The database cannot be reached. Nothing has run.
        OutcomeUnknown: There is an answer, and no synchronous standby has confirmed it.
        ImproperlyConfigured: Callers of several schemas share the table, and the scope names none.
        RuntimeError: The caller has opened a transaction already, or switched autocommit off: the
            claim would not be committed before the view runs.
    """
    _refuse_open_transaction()
    deadline = time.monotonic() + wait
    waiting = waiting or Stopwatch()
    first_look: str | None = None
    for look in count():
        standing = _read(claim, first_look)
        first_look = first_look or (standing.looked_at if standing else None)
        if standing and (answer := _answer(claim, standing)):
            yield answer
            return
        claiming, is_new = _claiming(claim, standing)
        with atomic(database.alias(), durable=True):
            is_held, mine = _lock(claim, claiming, is_new=is_new)
            if mine:
                try:
                    yield mine
                finally:
                    _end_inner_blocks(mine)
                return
            roll_back()
        if standing is None or standing.is_expired:
            _refuse_without_room(claim)
        if not is_held or (standing is None and not look):
            continue  # somebody was faster between our look and our lock: look at what he has done
        if time.monotonic() >= deadline:
            raise RequestInProgress
        with waiting:
            if not _wait_for_holder(claim, deadline - time.monotonic()):
                raise RequestInProgress
            # The holder may be about to keep its answer after a rollback: let it go first.
            time.sleep(_COURTESY)


def complete(attempt: Attempt, answer: Answer) -> bool:
    """Save the answer, and commit it with all that the attempt's transaction did.

    Returns:
        Whether the commit is as durable as was asked; see `database.fetch_confirmed`.

    Raises:
        OutcomeUnknown: The connection was lost, so the transaction may have been committed.
        TransactionManagementError: The transaction is not the attempt's any more.
    """
    try:
        # Django's own COMMIT then finds nothing to do, and sends nothing.
        commit: list[database.Statement] = [] if attempt.depth else [("COMMIT", ())]
        values = (*_saved(attempt, answer), attempt.transaction)
        return database.fetch_confirmed((statements.COMPLETE, values), *commit)[1]
    except (OperationalError, InterfaceError, InternalError) as error:
        if commit and not database.is_rolled_back(error):
            raise OutcomeUnknown from error
        raise
    except DataError as error:
        if database.sqlstate(error) != _DIVISION_BY_ZERO:
            raise
        raise TransactionManagementError(
            "The view ended the transaction it ran in, so its work and its answer cannot be "
            "committed together. Let it use atomic() blocks only, and leave the connection open."
        ) from error


def prolong(attempt: Attempt, seconds: float) -> None:
    """Keep the answer for a useful time after its commit, where that took so many seconds.

    It may wait for a standby, or for a deferred trigger, and is not seen before its end.
    """
    if seconds < attempt.useful.total_seconds() * (1 - _NEARLY):
        return
    values = (attempt.useful, attempt.id, attempt.first_seen, attempt.number)
    try:
        database.fetch(statements.PROLONG, values)
    except (DatabaseError, InterfaceError):
        logger.warning("Could not prolong the life of an answer.", exc_info=True)


def is_rolled_back() -> bool:
    """Tell, inside an attempt's transaction, whether it is bound to be rolled back."""
    return get_rollback(using=database.alias())


def roll_back() -> None:
    """Let the attempt's transaction end without effects."""
    set_rollback(True, using=database.alias())


def open_blocks(attempt: Attempt) -> int:
    """Count the ``atomic()`` blocks that were begun in the attempt's, and have not been ended."""
    return len(get_connection(database.alias()).savepoint_ids) - attempt.depth


def keep(attempt: Attempt, answer: Answer) -> None:
    """Save the answer of an attempt that has been rolled back.

    Raises:
        RequestInProgress: Another attempt has taken the key meanwhile, and its answer will count.
        OutcomeUnknown: No synchronous standby has confirmed it.
        StoreUnavailable: The database cannot be reached.
    """
    with database.reachable():
        rows, is_confirmed = database.fetch_confirmed((statements.KEEP, _saved(attempt, answer)))
    if not rows[0]:
        raise RequestInProgress
    if not is_confirmed:
        raise OutcomeUnknown


def confirm() -> None:
    """Wait, where commits wait for a synchronous standby, until one has all that can be seen.

    A commit whose wait has been ended from outside, as by a crash, can be seen, and is lost with
    the primary. A retry must not be told of it before a standby has it.

    Raises:
        OutcomeUnknown: The wait was ended from outside.
    """
    try:
        _rows, is_confirmed = database.fetch_confirmed((statements.CONFIRM, ()))
    except (OperationalError, InterfaceError) as error:
        raise OutcomeUnknown from error
    if not is_confirmed:
        raise OutcomeUnknown


def find(scope: str, key: str, *, users: str | None) -> IdempotencyKey | None:
    """Return a caller's key for them to look at, or None if it is not there.

    Raises:
        OutcomeUnknown: It is completed, and no synchronous standby has confirmed it.
        ImproperlyConfigured: Callers of several schemas share the table, and the scope names none.
        StoreUnavailable: The database cannot be reached.
    """
    with database.reachable():
        found = IdempotencyKey.objects.find(scope, key, users)
    if found and not found.is_own:
        raise _unnamed_tenant()
    if found and found.status == IdempotencyKey.Status.COMPLETED:
        confirm()
    return found


def fail(attempt: Attempt, error: str) -> None:
    """Record for the admin why an attempt left no answer; nothing depends on it."""
    try:
        database.fetch(statements.FAIL, (attempt.number, error[:255], *attempt.fence))
    except (DatabaseError, InterfaceError):
        logger.warning("Could not record how an attempt ended: %s", error, exc_info=True)


def _refuse_open_transaction() -> None:
    connection = get_connection(database.alias())
    if connection.in_atomic_block:
        # Django's own rule for what must be outermost, with its exception for TestCase.
        with suppress(RuntimeError), atomic(database.alias(), durable=True):
            return
    else:
        with database.reachable():
            if connection.get_autocommit():
                return
    raise RuntimeError(
        "An idempotent view must open its transaction itself, or its claim would not be committed "
        "before it runs; but one is open already. Call it outside of atomic(), with AUTOCOMMIT on; "
        "and under ATOMIC_REQUESTS decorate what the URL names: the view, or a class's dispatch; "
        "over @api_view put @transaction.non_atomic_requests."
    )


def _end_inner_blocks(attempt: Attempt) -> None:
    """Roll back with the attempt what was begun in it, and not ended.

    Django would take the end of the attempt's block for that of an inner one, and go on with the
    transaction.
    """
    if number := open_blocks(attempt):
        connection = get_connection(database.alias())
        del connection.savepoint_ids[-number:], connection.atomic_blocks[-number:]
        roll_back()


def _read(claim: Claim, first_look: str | None) -> _Standing | None:
    with database.reachable():
        row = database.fetch(statements.READ, (first_look, claim.users, claim.id))
    standing = _Standing(*row) if row else None
    if standing and not standing.is_own:
        raise _unnamed_tenant()
    return standing


def _unnamed_tenant() -> ImproperlyConfigured:
    """Return the error for callers of several schemas that share the table under one scope."""
    return ImproperlyConfigured(
        "Idempotency keys are kept in another schema than the users of this request, so users of "
        "several tenants may share them, and a key's scope does not name the tenant: one tenant's "
        "response could be replayed to another. Set IDEMPOTENCY['TENANT'], or create the table in "
        "each tenant's schema."
    )


def _claiming(claim: Claim, standing: _Standing | None) -> tuple[list[database.Statement], bool]:
    """Give the statements that claim the key if it is nobody's; each has a row if it did.

    In a TestCase the rollback of an attempt would take its claim, too. There they have been run,
    and the second says whether the key was claimed.
    """
    found: list[database.Statement] = []
    if standing and standing.is_expired:
        values: tuple[Any, ...] = (claim.ttl, claim.operation, claim.fingerprints[0], claim.id)
        sql = statements.TAKE_OVER_WITHIN if claim.room else statements.TAKE_OVER
        found.append((sql, values + claim.room))
    if not standing or standing.is_expired:  # a purge may be deleting it
        values = (claim.ttl, claim.users, claim.scope, claim.key, claim.operation)
        sql = statements.CLAIM_WITHIN if claim.room else statements.CLAIM
        found.append((sql, (claim.id, *values, claim.fingerprints[0], *claim.room)))
    if found and get_connection(database.alias()).in_atomic_block:
        with _refusing_unnamed_tenant():
            return [], any(database.fetch_each(*found))
    return found, False


@contextmanager
def _refusing_unnamed_tenant() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if database.sqlstate(error) != _DIVISION_BY_ZERO:
            raise
        raise _unnamed_tenant() from error


def _lock(
    claim: Claim, claiming: list[database.Statement], *, is_new: bool
) -> tuple[bool, Attempt | None]:
    """Claim the key, where that is still to be done, and lock its row: all in one round trip.

    Returns:
        Whether somebody else holds the row, and the attempt, if it is ours. Else somebody was
        faster, and has answered the request or used the key for another.
    """
    commit = [(statements.COMMIT_CLAIM, ())] if claiming else []
    try:
        with database.reachable(), _refusing_unnamed_tenant():
            rows = database.begin(*claiming, *commit, (statements.LOCK, (claim.id,)))
    except RequestInProgress:
        return True, None
    if rows[-1] is None:
        return True, None
    is_new, row = is_new or any(rows[: len(claiming)]), _Locked(*rows[-1])
    if row.status != IdempotencyKey.Status.IN_PROGRESS or row.fingerprint not in claim.fingerprints:
        return False, None
    if row.is_expired and not is_new:
        return False, None
    number = 1 if is_new and row.attempts == 1 else row.attempts + 1
    depth = len(get_connection(database.alias()).savepoint_ids)
    return False, Attempt(
        claim.id, claim.scope, claim.key, number, row.created_at, row.attempts, row.transaction,
        depth, claim.ttl,
    )  # fmt: skip


def _refuse_without_room(claim: Claim) -> None:
    """Tell a key that was not claimed for want of room from one that somebody else has."""
    if not claim.room:
        return
    with database.reachable():
        row = database.fetch(statements.FULL, (*claim.room, claim.id))
    if row:
        raise TooManyKeys(row[0])


def _wait_for_holder(claim: Claim, seconds: float) -> bool:
    """Wait until nobody holds the row; False where somebody still does after that time."""
    milliseconds = str(max(1, int(seconds * 1000)))  # 0 would be for ever
    try:
        database.fetch(statements.WAIT, (milliseconds, claim.id))
    except OperationalError as error:
        if database.sqlstate(error) in _TIMED_OUT:
            return False
        if not database.is_conflict(error):  # a conflict is how it ends under higher isolation
            raise StoreUnavailable from error
    return True


def _answer(claim: Claim, standing: _Standing) -> Answer | None:
    """Return the answer that a key stands for, or None where it has none."""
    if standing.is_expired:
        return None
    if standing.fingerprint not in claim.fingerprints:
        raise KeyReused
    if standing.status != IdempotencyKey.Status.COMPLETED:
        return None
    if standing.is_awaited:
        confirm()
    headers = answers.load(standing.headers or "[]")
    return Answer(standing.status_code or 0, headers, standing.body, standing.trace)


def _saved(attempt: Attempt, answer: Answer) -> tuple[Any, ...]:
    headers = answers.dump(answer.headers)
    useful = attempt.useful
    return (
        attempt.number, useful * _NEARLY, useful, answer.status_code, headers, answer.body,
        answer.trace, *attempt.fence,
    )  # fmt: skip
