"""A replay is as durable as a commit: no response is told before a synchronous standby has it.

The server waits for a standby that is away. What ends such a wait from outside leaves a transaction
that is committed and visible here, and nowhere else.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from conftest import DOORS, EACH, Door
from django.core.management import call_command
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.test import RequestFactory
from own_server import connect_to, own_server
from psycopg import OperationalError
from psycopg.sql import SQL, Identifier
from pytest_django import DjangoDbBlocker
from support import DEADLINE, eventually, threads

from benchmarks.faults import replication
from benchmarks.faults.server import Server
from idempotency.views import key_status

if TYPE_CHECKING:
    from concurrent.futures import Future

Serve = Callable[[Any], None]
Start = Callable[..., "Future[Any]"]

KINDS = [kind for kind, _ in EACH]


@pytest.fixture(scope="module")
def server(django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """Return a PostgreSQL of our own, with the table of the keys."""
    with own_server() as server, django_db_blocker.unblock():
        with threads() as start:
            start(create_tables, server).result(DEADLINE)
        yield server


def create_tables(server: Server) -> None:
    """Create what the requests need."""
    connect_to(server)
    call_command("migrate", "idempotency", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE work (done text)")


@pytest.fixture
def parted(server: Server) -> Iterator[Server]:
    """Have every commit wait for a standby that is away."""
    replication.expect(server, "sync")
    yield server
    come_back(server)
    with server.connect() as session:
        session.execute("TRUNCATE idempotency_key, work")


def come_back(server: Server) -> None:
    """End all waits as they should end: no standby is named any more."""
    replication.expect(server, "async")


def waiting(server: Server) -> list[int]:
    """Return the sessions that wait for the standby."""
    with server.connect() as session:
        rows = session.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return [int(str(pid)) for (pid,) in rows]


def done(server: Server) -> int:
    """Return how often the view's work was done."""
    with server.connect() as session:
        ((count,),) = session.execute("SELECT count(*) FROM work").fetchall()
    return int(str(count))


HOOKS: list[str] = []


def work(request: HttpRequest) -> HttpResponse:
    """Do what must not happen twice."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO work VALUES (%s)", [request.path])
    transaction.on_commit(lambda: HOOKS.append("ran"))
    return HttpResponse(os.urandom(8).hex(), status=201)


def refuse(_request: HttpRequest) -> HttpResponse:
    """Refuse with a response that is stored after the rollback."""
    raise Http404


def partner(_request: HttpRequest) -> str:
    """Return a scope that needs no query."""
    return "partner:1"


@pytest.fixture
def make(serve: Serve) -> Callable[..., Door]:
    """Put some work behind a kind of door."""

    def make(kind: str, work: Any = work) -> Door:
        view = DOORS[kind](work, scope=partner)
        serve(view)
        HOOKS.clear()
        return Door(view, token=None)

    return make


def send(server: Server, door: Door, **options: Any) -> Any:
    """Send a request from a fresh session."""
    connect_to(server, **options)
    return door()


def ask(server: Server, door: Door) -> Any:
    """Ask how the request with the door's key stands."""
    connect_to(server)
    return key_status(RequestFactory().get("/"), door.key, partner)


@contextmanager
def held(server: Server, door: Door, **options: Any) -> Iterator[tuple[Start, "Future[Any]", int]]:
    """Send a request whose commit waits; yield its future, and the session that waits."""
    with threads() as start:
        first = start(send, server, door, **options)
        try:
            (pid,) = eventually(lambda: waiting(server))
            yield start, first, pid
        finally:
            come_back(server)


def _cancel(server: Server, pid: int) -> None:
    with server.connect() as session:
        session.execute("SELECT pg_cancel_backend(%s)", (pid,))


def _terminate(server: Server, pid: int) -> None:
    with server.connect() as session:
        session.execute("SELECT pg_terminate_backend(%s)", (pid,))


def _crash(server: Server, _pid: int) -> None:
    server.crash()


def _restart(server: Server, _pid: int) -> None:
    server.stop(signal.SIGINT)
    server.start()


def _kill(server: Server, pid: int) -> None:
    """Kill a session, as the kernel does that is out of memory: all others end with it."""
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: _is_up_again(server))


def _is_up_again(server: Server) -> bool:
    try:
        return not waiting(server)
    except OperationalError:
        return False


ENDS = {
    "cancel": _cancel,
    "terminate": _terminate,
    "crash": _crash,
    "restart": _restart,
    "kill": _kill,
}


def told(response: Any) -> tuple[int, str]:
    """Return a response's status, and its problem."""
    return response.status_code, response.json()["type"].partition("#")[2]


UNKNOWN = (503, "outcome-unknown")


def check_end_of_wait(server: Server, door: Door, end: str, *, status: int, times: int) -> None:
    """End a commit's wait from outside, and see that nothing is told of it until it is durable."""
    with held(server, door) as (start, first, pid):
        ENDS[end](server, pid)
        assert told(first.result(DEADLINE)) == UNKNOWN
        assert first.result(DEADLINE).headers["Retry-After"] == "1"
        assert "may have been processed" in first.result(DEADLINE).json()["detail"]

        retry, state = start(send, server, door), start(ask, server, door)
        eventually(lambda: len(waiting(server)) == 2)
        assert not retry.done()
        assert not state.done()

        come_back(server)
        assert (
            retry.result(DEADLINE).status_code,
            "Idempotent-Replayed" in retry.result(DEADLINE).headers,
        ) == (
            status,
            True,
        )
        assert state.result(DEADLINE).status_code == 200
        assert b'"status": "completed"' in state.result(DEADLINE).content
    assert done(server) == times


@pytest.mark.parametrize("end", ENDS)
def test_fault_replication_a_retry_waits_as_the_commit_did(
    parted: Server, make: Callable[..., Door], end: str
) -> None:
    """Whatever has ended that one's wait."""
    check_end_of_wait(parted, make("function"), end, status=201, times=1)


@pytest.mark.parametrize("kind", KINDS)
def test_fault_replication_at_every_entry_point(
    parted: Server, make: Callable[..., Door], kind: str
) -> None:
    """The cancelled COMMIT succeeds, and its hooks run: only the client is told otherwise."""
    check_end_of_wait(parted, make(kind), "cancel", status=201, times=1)
    assert HOOKS == ["ran"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["cancel", "terminate"])
def test_fault_replication_a_response_that_is_stored_after_a_rollback_waits_too(
    parted: Server, make: Callable[..., Door], kind: str, end: str
) -> None:
    """It is told for a day."""
    door = make(kind, refuse)
    if end == "cancel":
        check_end_of_wait(parted, door, end, status=404, times=0)
        return
    with held(parted, door) as (_start, first, pid):
        _terminate(parted, pid)
        assert first.result(DEADLINE).status_code == 503


def test_fault_replication_a_replay_whose_wait_is_ended_is_told_so(
    parted: Server, make: Callable[..., Door]
) -> None:
    """The confirmation is a commit as any other."""
    door = make("function")
    with held(parted, door) as (start, first, pid):
        _cancel(parted, pid)
        first.result(DEADLINE)
        for request in (send, ask):
            for end in (_cancel, _terminate):
                again = start(request, parted, door)
                (it,) = eventually(lambda: waiting(parted))
                end(parted, it)
                response = again.result(DEADLINE)
                assert response.status_code == 503
                assert b"outcome-unknown" in response.content
    assert done(parted) == 1


TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
NEW_TIMEOUTS = (*TIMEOUTS, "transaction_timeout")
"""Of PostgreSQL 17 and newer."""


def test_fault_replication_no_timeout_ends_a_wait(
    parted: Server, make: Callable[..., Door]
) -> None:
    """Until then a copy is told that the first is running."""
    with parted.connect() as session:
        names = NEW_TIMEOUTS if session.info.server_version >= 170000 else TIMEOUTS
    options = " ".join(f"-c {name}=100ms" for name in names)
    door = make("function")
    with held(parted, door, options=options) as (start, first, pid):
        eventually(lambda: seconds_in_wait(parted, pid) > 1)
        assert told(start(send, parted, door).result(DEADLINE)) == (409, "request-in-progress")
        assert waiting(parted) == [pid]
        come_back(parted)
        assert first.result(DEADLINE).status_code == 201
    assert done(parted) == 1


def seconds_in_wait(server: Server, pid: int) -> float:
    """Return for how long a session's statement has been running."""
    with server.connect() as session:
        query = "SELECT extract(epoch FROM clock_timestamp() - query_start)"
        rows = session.execute(f"{query} FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall()
        return float(str(rows[0][0]))


def test_fault_replication_a_worker_that_is_lost_in_the_wait_leaves_the_key_held(
    parted: Server, make: Callable[..., Door]
) -> None:
    """Its session goes on to wait."""
    links: list[int] = []

    def work_and_note(request: HttpRequest) -> HttpResponse:
        links.append(os.dup(connection.connection.fileno()))
        return work(request)

    door = make("function", work_and_note)
    with held(parted, door) as (start, first, _pid):
        with socket.socket(fileno=links[0]) as link:
            link.shutdown(socket.SHUT_RDWR)
        assert told(first.result(DEADLINE)) == UNKNOWN
        assert told(start(send, parted, door).result(DEADLINE)) == (409, "request-in-progress")
        come_back(parted)
        eventually(lambda: start(send, parted, door).result(DEADLINE).status_code == 201)
    assert done(parted) == 1


@pytest.mark.parametrize("commit", ["off", "local"])
def test_fault_replication_who_asked_for_less_waits_for_nothing(
    parted: Server, make: Callable[..., Door], commit: str
) -> None:
    """``synchronous_commit`` of the session holds for the confirmation, too."""
    door = make("function")
    with threads() as start:
        option = f"-c synchronous_commit={commit}"
        first, retry = (
            start(send, parted, door, options=option).result(DEADLINE) for _ in range(2)
        )
    assert first.content == retry.content
    assert waiting(parted) == []


@pytest.fixture
def standby(server: Server) -> Iterator[Server]:
    """Build a synchronous standby."""
    standby = replication.follow(server, "sync")
    try:
        yield standby
    finally:
        come_back(server)
        standby.stop(signal.SIGQUIT)
        with server.connect() as session:
            session.execute("TRUNCATE idempotency_key, work")


def configure(server: Server, **options: str) -> None:
    """Change options of a server that is running."""
    with server.connect() as session:
        for name, value in options.items():
            session.execute(SQL("ALTER SYSTEM SET {} = {}").format(Identifier(name), value))
        session.execute("SELECT pg_reload_conf()")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["cancel", "terminate", "crash"])
def test_fault_replication_a_standby_that_is_promoted_has_what_was_told(
    server: Server, standby: Server, make: Callable[..., Door], end: str
) -> None:
    """It is away, comes back, and takes over: no difference and no loss."""
    door = make("function")
    with standby.connect() as session:
        ((road,),) = session.execute("SHOW primary_conninfo").fetchall()
    replication.part(server, standby)
    with held(server, door) as (start, first, pid):
        ENDS[end](server, pid)
        assert told(first.result(DEADLINE)) == UNKNOWN
        retry = start(send, server, door)
        eventually(lambda: waiting(server))
        configure(standby, primary_conninfo=str(road))
        said = retry.result(DEADLINE)
        assert said.status_code == 201

        # A standby can confirm nothing: what it shows is on its disk.
        eventually(lambda: done(standby))
        there = start(send, standby, door).result(DEADLINE)
        assert (there.status_code, there.content) == (201, said.content)

        configure(standby, synchronous_standby_names="")
        with standby.connect() as session:
            session.execute("SELECT pg_promote()")
        after = start(send, standby, door).result(DEADLINE)
        assert (after.status_code, after.content) == (201, said.content)
    assert done(standby) == 1
