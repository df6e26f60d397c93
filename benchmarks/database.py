"""A database of the benchmark's own, and what PostgreSQL knows about it."""

import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
from django.db import connection
from psycopg.conninfo import make_conninfo

SETTINGS = (
    "shared_buffers",
    "max_wal_size",
    "synchronous_commit",
    "full_page_writes",
    "wal_compression",
    "default_toast_compression",
)


@contextmanager
def own_database() -> Iterator[None]:
    """Create a database, point this process and its children to it, and drop it in the end."""
    settings = connection.settings_dict
    shop = settings["NAME"]
    settings["TEST"]["NAME"] = f"idempotency_benchmark_{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it is dropped then, too
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    os.environ["DATABASE_URL"] = make_conninfo(
        dbname=settings["NAME"],
        user=settings["USER"] or None,
        password=settings["PASSWORD"] or None,
        host=settings["HOST"] or None,
        port=settings["PORT"] or None,
    )
    try:
        yield
    finally:
        connection.creation.destroy_test_db(shop, verbosity=0)


def execute(sql: str, values: Any = None) -> int:
    """Run a statement, in a transaction of its own; give the number of rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)


def fetch(sql: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Give the rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def value(sql: str, values: Any = None) -> Any:
    """Give the only value of a query."""
    return fetch(sql, values)[0][0]


def explain(sql: str, values: Any = None) -> tuple[float, int]:
    """Run a query; give the milliseconds it took in the server, and the pages it looked at."""
    (plan,) = value(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", values)
    pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return plan["Execution Time"], pages


def flush_statistics() -> None:
    """Let what this connection has done be seen in the statistics views."""
    execute("SELECT pg_stat_force_next_flush()")
    execute("SELECT pg_stat_clear_snapshot()")


def versions() -> str:
    """Say in a few lines what is measured, and on what."""
    settings = ", ".join(f"{name} {value(f'SHOW {name}')}" for name in SETTINGS)
    return (
        f"PostgreSQL {value('SHOW server_version')}, Django {django.get_version()}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores\n{settings}"
    )
