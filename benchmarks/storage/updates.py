"""Fillfactor: whether completing a row finds room on its page, and what that room costs.

An update that does (a *HOT* one) leaves the indexes alone.
"""

from typing import Final

from benchmarks import database, tables, traffic
from benchmarks.designs import Design, sizes
from benchmarks.rows import Rows

INDEXES: Final = {"expiry": "btree (expires_at)", "scope": "btree (scope)"}
"""The app's own."""

FILLFACTORS: Final = (100, 95, 90, 80, 70)


def compare(rows: Rows, requests: int) -> None:
    """Print the share of HOT updates, and bytes of table, indexes and WAL per request."""
    caller = traffic.Caller(rows.seed)
    database.execute("SET synchronous_commit = off")
    lines = [_measure(caller, factor, 10 * requests) for factor in FILLFACTORS]
    database.execute("RESET synchronous_commit")
    tables.show(
        f"{10 * requests:,} requests, from claim to completion",
        ("fillfactor", "HOT updates, %", "heap bytes a row", "index bytes a row", "WAL bytes"),
        lines,
    )


def _measure(caller: traffic.Caller, factor: int, requests: int) -> tuple[object, ...]:
    design = Design(schema=f"fill_{factor}", indexes=INDEXES, options=f"fillfactor={factor}")
    with design.created():
        before = database.value("SELECT pg_current_wal_insert_lsn() - '0/0'")
        for _ in range(requests):
            caller.request()
        wal = int(database.value("SELECT pg_current_wal_insert_lsn() - '0/0'") - before)
        database.flush_statistics()
        share = database.value(
            "SELECT 100.0 * n_tup_hot_upd / n_tup_upd FROM pg_stat_user_tables"
            " WHERE relid = 'idempotency_key'::regclass"
        )
        measured = sizes()
    indexes = sum(measured.indexes.values())
    return (str(factor), float(share), measured.heap / requests, indexes / requests, wal / requests)
