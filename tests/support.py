"""Real threads, real processes and real time, without a sleep that decides anything."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import psycopg
from django.conf import settings
from django.db import connection, connections, transaction
from psycopg.conninfo import make_conninfo

from idempotency.digests import digest
from testproject import leash, variants

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parent.parent
DEADLINE = 30.0
"""Seconds after which a test gives up on something that should have happened long ago."""


def eventually(condition: Callable[[], T]) -> T:
    """Wait for a condition to become true, and give back what it said."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, "It never happened."
        time.sleep(0.01)
    return value


@contextmanager
def threads() -> Iterator[Callable[..., "Future[Any]"]]:
    """Give a function that starts another on a thread with a connection of its own."""
    with ThreadPoolExecutor(max_workers=40) as pool:

        def run(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
            try:
                return function(*args, **kwargs)
            finally:
                connections.close_all()

        yield lambda function, *args, **kwargs: pool.submit(run, function, *args, **kwargs)


def elsewhere(function: Callable[..., T], *args: Any) -> T:
    """Call a function on a thread of its own, for callers in whose thread an event loop runs."""
    with threads() as start:
        result: T = start(function, *args).result()
        return result


class Gate:
    """Keeps a view in the middle of its work for as long as a test wants."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Stay here until it is opened: what the view calls."""
        self._reached.set()
        assert self._opened.wait(DEADLINE)

    def reached(self) -> bool:
        """Wait until the view has come to it."""
        return self._reached.wait(DEADLINE)

    def open(self) -> None:
        """Let the view go on."""
        self._opened.set()


@contextmanager
def unreachable_database() -> Iterator[None]:
    """Let no connection to the test database come about: nobody listens where it looks."""
    usual = {name: connection.settings_dict[name] for name in ("PORT", "OPTIONS")}
    options = dict(usual["OPTIONS"])
    if "pool" in options:
        options["pool"] = {**options["pool"], "timeout": 0.5}  # seconds
    hang_up()
    connection.settings_dict.update(PORT="1", OPTIONS=options)
    try:
        yield
    finally:
        connection.settings_dict.update(usual)
        hang_up()


def hang_up() -> None:
    """Let the next statement connect anew, as the settings then are: pools remember them."""
    mine: Any = connection
    mine.close()
    mine.close_pool()
    if settings.DATABASE_VARIANT == variants.PGBOUNCER:
        end_sessions()


def keep_session() -> None:
    """Give this thread, until it ends, a session of its own, for a test that changes the session.

    A pool, ours or PgBouncer's, would lend it to others.
    """
    mine: Any = connection
    mine.close()
    names = {"HOST": settings.POSTGRES["host"], "PORT": settings.POSTGRES["port"]}
    options = {name: v for name, v in mine.settings_dict["OPTIONS"].items() if name != "pool"}
    mine.settings_dict = mine.settings_dict | names | {"OPTIONS": options}


def isolate(level: str) -> None:
    """Let this thread's transactions be as if the server had this default."""
    keep_session()
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")


def put_expired(*keys: str, ago: str = "1 hour") -> None:
    """Put keys of "user:1" that have been expired for some time, the first for the longest."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO idempotency_key (id, created_at, expires_at, attempts, status, scope, key,"
            " operation, fingerprint, last_error) SELECT %s, expiry - interval '1 day', expiry, 1,"
            " 'in_progress', 'user:1', %s, 'POST work/', '1', ''"
            " FROM (SELECT now() - %s::interval + %s * interval '1 microsecond') AS row (expiry)",
            [(digest("user:1", key), key, ago, number) for number, key in enumerate(keys)],
        )


PAUSED = "paused"
"""The key at which `paused_deletes` stops a purge."""


@contextmanager
def paused_deletes(when: str) -> Iterator[Callable[[], None]]:
    """Stop each DELETE of keys in the middle, and give what lets it go on.

    Args:
        when: "BEFORE STATEMENT" has its snapshot, and has locked nothing. "BEFORE ROW", at the key
            `PAUSED`, has locked all its rows. "AFTER ROW" has deleted them all as well.
    """
    timing, level = when.split()
    condition = f"WHEN (OLD.key = '{PAUSED}')" if level == "ROW" else ""
    with session() as cursor:
        cursor.execute(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM pg_advisory_xact_lock_shared(1); RETURN OLD; END $$;"
            f"CREATE TRIGGER pause {timing} DELETE ON idempotency_key FOR EACH {level} {condition}"
            " EXECUTE FUNCTION pause(); SELECT pg_advisory_lock(1)"
        )

        def go_on() -> None:
            cursor.execute("SELECT pg_advisory_unlock_all()")

        try:
            yield go_on
        finally:
            go_on()
            cursor.execute("DROP FUNCTION pause CASCADE")


def run_at_commit(statement: str) -> None:
    """Have a deferred trigger run a statement of PL/pgSQL in this transaction's COMMIT."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION pg_temp.at_commit() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {statement}; RETURN NULL; END $$;"
            "CREATE TEMPORARY TABLE late (n int) ON COMMIT DROP;"
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON late DEFERRABLE INITIALLY"
            " DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.at_commit();"
            "INSERT INTO late VALUES (1)"
        )


def backend_pid() -> int:
    """Give the server's process id for this thread's session, which a transaction keeps."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")  # PgBouncer has told the driver its own
        return int(cursor.fetchone()[0])


def waiting_for_a_lock() -> int:
    """Count the connections to the test database that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # a transaction would see the past
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


def workers_in_mid_payment() -> list[int]:
    """Give the process ids of the shop's workers that have written a payment and sleep on it."""
    return _workers(
        """state = 'idle in transaction' AND query LIKE 'INSERT INTO "shop_payment"%'"""
    )


def workers_waiting_for_a_lock() -> list[int]:
    """Give the process ids of the shop's workers that a statement keeps waiting for a lock."""
    return _workers("wait_event_type = 'Lock'")


def _workers(condition: str) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # a transaction would see the past
        cursor.execute(
            "SELECT substr(application_name, 6)::int FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'shop-%' AND "
            + condition
        )
        return [pid for (pid,) in cursor.fetchall()]


def database_url() -> str:
    """Give the test database to processes of their own, as what libpq takes for a URL.

    It leads straight to PostgreSQL: by the variant's way they go by themselves.
    """
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password"}
    parts = {name: connection.settings_dict[key] for key, name in names.items()} | settings.POSTGRES
    return make_conninfo("", **{name: value or None for name, value in parts.items()})


@contextmanager
def session(**options: str) -> Iterator[psycopg.Connection]:
    """Connect straight to PostgreSQL, for what needs a session: PgBouncer gives transactions."""
    with psycopg.connect(make_conninfo(database_url(), **options), autocommit=True) as mine:
        yield mine


def end_sessions() -> None:
    """End all sessions in the test database, so that it can be dropped: PgBouncer keeps some."""
    with session(dbname="postgres") as mine:
        mine.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [connection.settings_dict["NAME"]],
        )


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# They keep connections for longer than any test takes: to a client, one that is being closed looks
# like a worker that died.
SERVERS = {
    "wsgi": "gunicorn testproject.wsgi --worker-class=gthread --workers=2 --threads=12"
    " --keep-alive=75 --bind=127.0.0.1:{port} --log-level=warning",
    "asgi": "uvicorn testproject.asgi:application --workers=2 --lifespan=off"
    " --timeout-keep-alive=75 --host=127.0.0.1 --port={port} --log-level=warning",
}

FEW = SERVERS["wsgi"].replace("--threads=12", "--threads=4")
"""For the kind "few": two sync workers with eight threads in all."""


@contextmanager
def shop(kind: str, **environment: str) -> Iterator[httpx.Client]:
    """Serve the shop on the test database with a production server, and give a client for it."""
    with TemporaryDirectory() as folder, _serve(kind, folder, environment) as client:
        yield client


@contextmanager
def _serve(kind: str, folder: str, environment: dict[str, str]) -> Iterator[httpx.Client]:
    port = free_port()
    command = (SERVERS | {"few": FEW})[kind].format(port=port).split()
    server = leash.spawn(
        [sys.executable, "-m", *command],
        signal.SIGTERM,
        cwd=CHECKOUT,
        env={
            **os.environ,
            "DATABASE_URL": database_url(),
            "XDG_RUNTIME_DIR": folder,  # for gunicorn's control socket, which all would share
            **environment,
        },
        start_new_session=True,
    )
    try:
        limits = httpx.Limits(max_connections=None)
        base_url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base_url, timeout=DEADLINE, limits=limits) as client:
            eventually(lambda: _answers(client, server))
            yield client
    finally:
        leash.end(server, DEADLINE)


def _answers(client: httpx.Client, server: Popen[bytes]) -> bool:
    assert server.poll() is None, "The server did not start."
    try:
        return client.get("/idempotency/policy/").status_code == 200
    except httpx.TransportError:
        return False
