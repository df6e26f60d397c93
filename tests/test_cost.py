"""What a key costs, as PostgreSQL counts it: statements, round trips, fsyncs, WAL, dead rows."""

import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from own_server import connect_to, own_server
from pytest_django import DjangoDbBlocker
from support import CHECKOUT, Gate, threads

from benchmarks.faults.server import Server
from benchmarks.speed.proxy import Link, link
from idempotency.decorators import idempotent

if TYPE_CHECKING:
    from concurrent.futures import Future

BINDINGS = ("client", "server")
"""Who puts parameters into statements: `DATABASES` ``["OPTIONS"]["server_side_binding"]``."""


class Sent(NamedTuple):
    """What a request sends to PostgreSQL."""

    statements: int
    round_trips: int


A_BARE_VIEW = Sent(3, 3)
ADDED_TO_A_FIRST_REQUEST = Sent(5, 1)
A_REPLAY = Sent(1, 1)
A_CONCURRENT_DUPLICATE = Sent(4, 3)
"""All that is promised of the hot path, whoever binds. The bare view sends BEGIN, a statement of
its own, and COMMIT."""

OPTIONS = {
    "shared_preload_libraries": "pg_stat_statements",
    # Nothing but the test is to write to the WAL, and nobody else to flush it.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "checkpoint_timeout": "1d",
    "wal_sync_method": "fdatasync",
}

FSYNCS = {
    False: "SELECT wal_sync FROM pg_stat_wal",
    True: "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'",
}
"""By whether the server is PostgreSQL 18 or newer."""


class Seen(NamedTuple):
    """What PostgreSQL has counted until now."""

    statements: int
    fsyncs: int
    wal: int
    """Bytes."""
    written: int
    """Rows inserted, updated or deleted in the table of the keys."""
    dead: int
    """Of these, what is left for VACUUM."""


class Cost(NamedTuple):
    """What a request has taken."""

    sent: Sent
    fsyncs: int
    wal: int
    written: int
    dead: int


@pytest.fixture(scope="module")
def server(django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """Give a PostgreSQL of our own, with the table of the keys, where nothing else happens."""
    with own_server(**OPTIONS) as server:
        with django_db_blocker.unblock(), threads() as start:
            start(create_tables, server).result()
        with stopped_wal_writer(server):
            yield server


@contextmanager
def stopped_wal_writer(server: Server) -> Iterator[None]:
    """Let every flush of the WAL be that of a request: else some are done in the background."""
    with server.connect() as session:
        sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
        [(pid,)] = session.execute(sql).fetchall()
    os.kill(int(str(pid)), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(int(str(pid)), signal.SIGCONT)


def create_tables(server: Server) -> None:
    """Create what the requests need, those of the shop aside."""
    connect_to(server)
    call_command("migrate", "idempotency", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE work (done text)")


class Requests:
    """Sends requests over a link on which the round trips are counted."""

    def __init__(self, server: Server, road: Link, binding: str) -> None:
        self._server, self._road, self._binding = server, road, binding

    def __call__(self, *requests: Callable[[], int]) -> list[tuple[int, Cost]]:
        """Send requests one after another from a fresh thread; give statuses and what they cost."""
        with threads() as start:
            told: list[tuple[int, Cost]] = start(self._send, requests).result()
            return told

    def _send(self, requests: tuple[Callable[[], int], ...]) -> list[tuple[int, Cost]]:
        is_server_side = self._binding == "server"
        connect_to(self._server, self._road.port, server_side_binding=is_server_side)
        return [self._measure(request) for request in requests]

    def _measure(self, request: Callable[[], int]) -> tuple[int, Cost]:
        before = self._look()
        trips = self._road.round_trips
        status = request()
        trips = self._road.round_trips - trips
        now = self._look()
        statements, *others = (there - then for there, then in zip(now, before, strict=True))
        return status, Cost(Sent(statements, trips), *others)

    @staticmethod
    def _look() -> Seen:
        mine: Any = connection
        with mine.cursor() as cursor:
            is_new = mine.pg_version >= 180000
            cursor.execute("SELECT pg_stat_force_next_flush()")
            cursor.execute(
                "SELECT (SELECT sum(calls) FROM pg_stat_statements WHERE query !~ 'pg_stat'),"
                f" ({FSYNCS[is_new]}), pg_current_wal_insert_lsn() - '0/0',"
                " n_tup_ins + n_tup_upd + n_tup_del, n_dead_tup"
                " FROM pg_stat_all_tables WHERE relname = 'idempotency_key'"
            )
            return Seen(*map(int, cursor.fetchone()))


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> str:
    """Who puts parameters into statements."""
    return str(request.param)


@pytest.fixture
def send(server: Server, binding: str, django_db_blocker: DjangoDbBlocker) -> Iterator[Requests]:
    """Send requests to our server, and count."""
    with django_db_blocker.unblock(), link("127.0.0.1", server.port) as road:
        yield Requests(server, road, binding)


def work(request: HttpRequest) -> HttpResponse:
    """Do what a view does, with one statement."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO work VALUES (%s)", [request.path])
    return HttpResponse("done", status=201, content_type="text/plain")


def call(view: Callable[[HttpRequest], Any], key: str = "") -> Callable[[], int]:
    """Give what sends a request, with a key if the view takes one."""
    headers = {"Idempotency-Key": key} if key else {}
    return lambda: int(view(RequestFactory().post("/work/", headers=headers)).status_code)


bare = call(transaction.atomic(work))


def first(work: Callable[[HttpRequest], HttpResponse] = work) -> Callable[[], int]:
    """Give what sends a request with a new key."""
    return call(idempotent(scope=lambda request: "partner:1")(work), str(uuid.uuid4()))


def test_a_first_request_waits_for_one_fsync_as_without_a_key(send: Requests) -> None:
    """And sends as much more than the bare view as is promised."""
    # Each new session first fills its caches, and the first transactions extend the tables.
    *_, (bare_status, without), (status, with_key) = send(bare, first(), bare, first())

    assert (bare_status, status) == (201, 201)
    assert without.fsyncs == with_key.fsyncs == 1
    assert added(with_key.sent, without.sent) == ADDED_TO_A_FIRST_REQUEST
    assert (without.written, without.dead) == (0, 0)
    assert (with_key.written, with_key.dead) == (2, 1), "Not one insert and one update."


def added(more: Sent, less: Sent) -> Sent:
    """Give the difference."""
    return Sent(*(a - b for a, b in zip(more, less, strict=True)))


def test_a_replay_writes_nothing(send: Requests) -> None:
    """No WAL, no row, no dead row; and it waits for no fsync."""
    request = first()
    (status, _), *replays = send(request, request, request)

    assert status == 201
    assert replays == [(201, Cost(A_REPLAY, 0, 0, 0, 0))] * 2


def test_a_concurrent_duplicate_writes_nothing(send: Requests, server: Server) -> None:
    """It is told 409 while the first is still running, at the cost of looks alone."""
    gate = Gate()

    def slow(request: HttpRequest) -> HttpResponse:
        answer = work(request)
        gate.wait()
        return answer

    request = first(slow)
    with held(server, request, gate) as running:
        assert send(request) == [(409, Cost(A_CONCURRENT_DUPLICATE, 0, 0, 0, 0))]
    assert running.result() == 201


@contextmanager
def held(server: Server, request: Callable[[], int], gate: Gate) -> Iterator["Future[int]"]:
    """Send a request that stays at the gate, which opens in the end."""

    def run() -> int:
        connect_to(server)
        return request()

    with threads() as start:
        running = start(run)
        try:
            assert gate.reached()
            yield running
        finally:
            gate.open()


def test_a_link_passes_on_everything_in_its_order() -> None:
    """What is sent before an answer has come is one round trip, in however many pieces."""
    sent = [bytes([n]) * 1000 for n in range(100)]

    with socket.create_server(("127.0.0.1", 0)) as far:
        with link("127.0.0.1", far.getsockname()[1], delay=0.001) as road:
            with socket.create_connection(("127.0.0.1", road.port)) as near, far.accept()[0] as end:
                for answer in (b"one", b"two"):
                    for piece in sent:
                        near.sendall(piece)
                    assert receive(end, 100_000) == b"".join(sent)
                    end.sendall(answer)
                    assert receive(near, 3) == answer
                assert road.round_trips == 2
                near.shutdown(socket.SHUT_WR)
                assert end.recv(1) == b""


def receive(end: socket.socket, size: int) -> bytes:
    """Give as many bytes."""
    with end.makefile("rb") as file:
        return file.read(size)


def test_a_bare_view_is_what_it_is_compared_with(send: Requests) -> None:
    """Django sends its statements one by one, whoever binds."""
    *_, (status, cost) = send(bare, bare)

    assert (status, cost.sent) == (201, A_BARE_VIEW)
    assert cost.wal > 0


def test_the_documentation_has_these_numbers() -> None:
    """The table is what is counted here."""
    page = (CHECKOUT / "docs/far-and-large.md").read_text()

    for request, sent, fsyncs in [
        ("the bare view", A_BARE_VIEW, 1),
        ("a first request, beyond that", ADDED_TO_A_FIRST_REQUEST, 0),
        ("a replay, in all", A_REPLAY, 0),
        ("a concurrent duplicate (409), in all", A_CONCURRENT_DUPLICATE, 0),
    ]:
        assert f"| {request} | {sent.statements} | {sent.round_trips} | {fsyncs} |" in page
