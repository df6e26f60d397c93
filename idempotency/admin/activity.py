"""What goes on in the table right now, as PostgreSQL's own views tell it, without reading the rows.

The statistics of other database users are NULL to one without the right of ``pg_read_all_stats``.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from idempotency import database

_HOLDER = """
    SELECT locks.pid, activity.application_name, host(activity.client_addr), activity.state,
           concat_ws(': ', activity.wait_event_type, activity.wait_event),
           clock_timestamp() - activity.xact_start, clock_timestamp() - activity.backend_start
      FROM idempotency_key
      JOIN pg_locks AS locks ON locks.locktype = 'transactionid' AND locks.granted
           AND locks.transactionid = idempotency_key.xmax
      LEFT JOIN pg_stat_activity AS activity USING (pid)
     WHERE id = %s::uuid
"""

# Whoever locks a row keeps this lock of the whole table until the transaction ends. One who only
# waits for a row has not written yet, and so has no transaction id.
_RUNNING = """
    SELECT count(*), clock_timestamp() - min(xact_start)
      FROM pg_stat_activity
     WHERE backend_xid IS NOT NULL AND pid IN (
        SELECT pid FROM pg_locks
         WHERE locktype = 'relation' AND relation = 'idempotency_key'::regclass AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND mode = 'RowShareLock'
     )
"""

# What the planner goes by: the density of the rows at the latest ANALYZE or VACUUM.
_ESTIMATE = """
    SELECT CASE WHEN relpages > 0 AND reltuples >= 0
           THEN reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::int)
           END
      FROM pg_class WHERE oid = 'idempotency_key'::regclass
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The connection that holds a row. All but ``pid`` may be unknown."""

    pid: int | None
    """Process id of the connection's server process; None for a prepared transaction."""
    application: str | None
    client: str | None
    """Address it connects from; None also for a socket on the server itself."""
    state: str | None
    """What the connection does: "active", "idle in transaction", …"""
    waits_for: str
    """Type and name of what it waits for; empty where it waits for nothing."""
    running_for: timedelta | None
    """How long its transaction is open."""
    connected_for: timedelta | None


@dataclass(frozen=True, slots=True)
class Running:
    """The transactions that hold rows of the table."""

    count: int
    oldest: timedelta | None
    """How long the oldest of them is open; None where nobody may know, or there is none."""


def holder(pk: UUID) -> Holder | None:
    """Tell who holds the row of a key; None where nobody does."""
    row = database.fetch(_HOLDER, (pk,))
    return Holder(*row) if row else None


def running() -> Running:
    """Count the requests that run now. A batch of the purge counts as one while it lasts."""
    row = database.fetch(_RUNNING) or (0, None)
    return Running(*row)


def estimated_rows() -> int | None:
    """Give PostgreSQL's own estimate of the number of rows; None before its first statistics."""
    (rows,) = database.fetch(_ESTIMATE) or (None,)
    return None if rows is None else round(rows)
