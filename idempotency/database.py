"""The database that keeps the keys: its alias, one statement to it, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, InternalError, OperationalError, connections, router
from psycopg import ClientCursor
from psycopg.errors import Diagnostic

from .exceptions import RequestInProgress, StoreUnavailable
from .models import IdempotencyKey

Statement = tuple[str, tuple[Any, ...]]
"""Its SQL, and its values."""

_CONFLICT = {"40001", "40P01"}
_READ_ONLY = "25006"
_CONNECTION_LOST = ("08", "57P")
"""SQLSTATEs: serialization failure and deadlock; what a server says that is a standby now; and the
classes of what a pooler says of a server that is gone, and of what ends a session."""


def alias() -> str:
    """Give the alias of the database that keeps the keys, and so the business data."""
    return router.db_for_write(IdempotencyKey)


@contextmanager
def reachable() -> Iterator[None]:
    """Put what PostgreSQL says of one of our statements into the words of the contract."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        if isinstance(error, InternalError) and sqlstate(error) != _READ_ONLY:
            raise
        if is_conflict(error):  # under higher isolation: somebody else was at this very row
            raise RequestInProgress from error
        raise StoreUnavailable from error


def fetch(sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
    """Run one statement, and give its first row; None where it has none."""
    with connections[alias()].cursor() as cursor:
        cursor.execute(sql, values)
        return _first(cursor)


def begin(*statements: Statement) -> list[tuple[Any, ...] | None]:
    """Begin the transaction that `atomic` has just opened, and `fetch_each` in the same round trip.

    All that `atomic` does is to switch psycopg's autocommit off. Before the next statement psycopg
    then sends BEGIN, and waits for it; unless there is a transaction already, and here BEGIN is
    ours. In a TestCase there is one.
    """
    connection = connections[alias()]
    session: Any = connection.connection
    if connection.savepoint_ids:
        return fetch_each(*statements)
    level = session.isolation_level  # of the connection's OPTIONS, which psycopg would send, too
    sql = f"BEGIN ISOLATION LEVEL {level.name.replace('_', ' ')}" if level else "BEGIN"
    with connection.wrap_database_errors:
        session.autocommit = True
    try:
        return fetch_each((sql, ()), *statements)[1:]
    finally:
        # The setter refuses inside a transaction, but off is what it is there: Django declares
        # its cursors by it, and one that outlives its transaction cannot lock rows.
        session._autocommit = False


def fetch_each(*statements: Statement) -> list[tuple[Any, ...] | None]:
    """Run statements in one round trip, and give the first row of each; None where it has none.

    Where one fails, none after it is run.
    """
    connection = connections[alias()]
    sql, values = "; ".join(sql for sql, _ in statements), [v for _, vs in statements for v in vs]
    with connection.cursor() as cursor:
        if connection.features.uses_server_side_binding:  # type: ignore[attr-defined]
            # A message with values of the protocol's own is one statement: put them into the SQL.
            cursor.cursor = ClientCursor(connection.connection)
        cursor.execute(sql, values)
        rows = [_first(cursor)]
        while cursor.nextset():
            rows.append(_first(cursor))
    return rows


def fetch_confirmed(*statements: Statement) -> tuple[list[tuple[Any, ...] | None], bool]:
    """`fetch_each` of statements that commit, and whether that commit is as durable as was asked.

    It is not where the wait for a synchronous standby was ended from outside, as by
    ``pg_cancel_backend()``: the COMMIT has succeeded then, is visible to all, and is lost with the
    primary. All that PostgreSQL says of it is a notice.
    """
    connection = connections[alias()]
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    session, is_confirmed = connection.connection, True

    def notice(diagnostic: Diagnostic) -> None:
        nonlocal is_confirmed
        # Neither the SQLSTATE, which triggers raise, too, nor the text, which is translated.
        is_confirmed &= diagnostic.source_function != "SyncRepWaitForLSN"

    session.add_notice_handler(notice)
    try:
        rows = fetch_each(*statements)
    finally:
        session.remove_notice_handler(notice)
    return rows, is_confirmed


def _first(cursor: Any) -> tuple[Any, ...] | None:
    # Where there is a count, there are rows: all our statements give back what they do.
    row: tuple[Any, ...] | None = cursor.fetchone() if cursor.rowcount > 0 else None
    return row


def sqlstate(error: BaseException) -> str | None:
    """Give PostgreSQL's own code for what Django raised; None where it has none."""
    return getattr(error.__cause__, "sqlstate", None)


def is_conflict(error: BaseException) -> bool:
    """Tell whether PostgreSQL gave up one transaction for another: deadlock, or serialization."""
    return sqlstate(error) in _CONFLICT


def is_rolled_back(error: BaseException) -> bool:
    """Whether an error of a COMMIT proves that nothing was committed.

    PostgreSQL answers a COMMIT that fails with an error, and goes on. Where the connection ends
    instead, whichever of PostgreSQL, a pooler or the network has ended it, nothing is known.
    """
    diagnostic = getattr(error.__cause__, "diag", None)
    severity = getattr(diagnostic, "severity_nonlocalized", None)
    return severity == "ERROR" and not (sqlstate(error) or "").startswith(_CONNECTION_LOST)
