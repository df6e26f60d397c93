"""The purge: expired rows leave in batches, each a transaction of its own, in nobody's way.

It is hygiene only: an expired key counts as never seen, whether or not its row is still there.

Note [The purge waits for nobody]
It takes a row only if nobody holds it, so it cannot disturb a running request, two purges share
the work, and none waits for another. Who wants one of its rows meanwhile finds it held for the
milliseconds that a batch takes, as if by a request: the claim of a key that expired long ago is
then answered 409, and its retry starts afresh.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import OperationalError, connections
from django.db.transaction import atomic

from . import statements

BATCH_SIZE = 100
PAUSE = 0.005
"""Rows in a batch, and the seconds after it that are everybody else's. Without a pause a purge
takes a core of the database and all that its disk can write, and live requests take twice as long.
With it they hardly notice, and it still deletes many times faster than requests come: the figures
are in ``docs/storage.md``."""

OVERDUE = timedelta(days=2)
"""How long an expired key may stay before something must be wrong with the purge. One that runs
every night leaves keys for a day and a bit: this is one night missed, at any setting of TTL."""

TASK = "idempotency.tasks.purge_expired_keys"
"""What Celery calls the task that purges. Schedules in databases know it by this name."""

_RECORDS_KEPT = 1000
"""A week of one every ten minutes; a page or two of disk."""

_SERIALIZATION_FAILURE = "40001"


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did."""

    rows: int
    """How many expired keys it deleted."""
    is_complete: bool
    """Whether no expired key was left: none beyond a budget, none that a request still held."""


def purge(  # noqa: PLR0913  # all but the first are the verb's keywords
    database: str,
    *,
    batch_size: int = BATCH_SIZE,
    pause: float = PAUSE,
    max_rows: int | None = None,
    max_seconds: float | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> Purged:
    """Delete expired keys until none is left, or a budget is spent.

    This is `IdempotencyKeyQuerySet.purge`, which explains it, on a database by its alias.
    """
    _refuse_nonsense(batch_size=batch_size, max_rows=max_rows, max_seconds=max_seconds)
    if not pause >= 0:
        raise ValueError(f"pause= must be 0 or more, not {pause!r}.")
    _refuse_open_transaction(database)
    deadline = time.monotonic() + (float("inf") if max_seconds is None else max_seconds)
    (record,) = _run(database, statements.PURGE_BEGIN)
    rows, latest = 0, "-infinity"
    while time.monotonic() < deadline:
        limit = batch_size if max_rows is None else min(batch_size, max_rows - rows)
        deleted, latest = _run(database, statements.PURGE_BATCH, latest, limit, record)
        rows += deleted
        if not deleted or (on_batch and on_batch(rows)) or rows == max_rows:
            break
        time.sleep(pause)
    (is_complete,) = _run(database, statements.PURGE_END, record, record - _RECORDS_KEPT)
    return Purged(rows, is_complete)


def _refuse_nonsense(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name}= must be more than 0, not {number!r}.")


def _refuse_open_transaction(database: str) -> None:
    connection = connections[database]
    if connection.in_atomic_block:
        with atomic(database, durable=True):  # raises, but in a TestCase
            return
    if not connection.get_autocommit():
        raise RuntimeError(
            "A purge commits after each batch, and so needs AUTOCOMMIT on. Switch it on first."
        )


def _run(database: str, statement: str, *values: Any) -> tuple[Any, ...]:
    """Run one statement, which is a transaction, and give back its one row.

    So its locks are never held for longer than the server works, whatever becomes of the client.
    Where a server's default isolation is higher than READ COMMITTED, a row that somebody changed
    just then fails the statement in place of being passed over. Each time it fails somebody else
    got on, so it is run again for as long as that takes.
    """
    while True:
        try:
            with connections[database].cursor() as cursor:
                cursor.execute(statement, values)
                row: tuple[Any, ...] = cursor.fetchone()
                return row
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != _SERIALIZATION_FAILURE:
                raise
