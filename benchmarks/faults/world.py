"""The processes: a PostgreSQL of its own, and the shop under gunicorn, with the proxy between."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import httpx
import psycopg
from django.conf import settings
from psycopg.conninfo import make_conninfo

from testproject import leash, postgres

from . import sabotage
from .checker import BALANCE
from .clients import TOKENS
from .proxy import Proxy

IDLE_BOUND = 1
"""Seconds: ``idle_in_transaction_session_timeout``, which frees the key of a worker that hangs."""

_START = 60.0
"""Seconds that a process has to start."""

_OPTIONS = {
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "deadlock_timeout": "100ms",
    # Whatever is committed without an fsync stays in memory for long, so that a crash loses it.
    "wal_writer_delay": "10s",
}

Session = psycopg.Connection[tuple[object, ...]]


@dataclass
class World:
    """A running PostgreSQL with the shop's tables; `shop` serves the shop on it."""

    programs: Path
    folder: Path
    port: int
    proxy: Proxy
    password: str = field(default_factory=secrets.token_urlsafe)
    server: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        """Where the processes write what they have to say."""
        return self.folder.parent / "log"

    def conninfo(self, port: int) -> str:
        """Give what libpq needs to connect, directly or through the proxy."""
        return make_conninfo(
            host="127.0.0.1", port=port, user="shop", password=self.password, dbname="postgres",
            sslmode="disable", gssencmode="disable", connect_timeout=5,
            options=f"-c idle_in_transaction_session_timeout={IDLE_BOUND}s"
            " -c client_connection_check_interval=1s",
        )  # fmt: skip

    def session(self) -> Session:
        """Give a connection that does not pass the proxy; wait for the server if it starts."""
        deadline = time.monotonic() + _START
        while True:
            try:
                return psycopg.connect(self.conninfo(self.port), autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def start_server(self) -> None:
        """Start PostgreSQL, which recovers if it crashed, and wait until it answers."""
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", self.port]
        self.server = self._spawn(*command, *options, end_with=signal.SIGINT)
        self.session().close()

    def crash_server(self) -> None:
        """Restart PostgreSQL as ``pg_ctl restart -m immediate`` does: without a checkpoint."""
        self.stop_server(signal.SIGQUIT)
        self.start_server()

    def stop_server(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop PostgreSQL, by default in the fast way."""
        if self.server:
            self.server.send_signal(number)
            self.server.wait(_START)

    def create(self) -> None:
        """Make the server's folder, start it, and fill it with the shop's tables and accounts."""
        password = self.folder / "password"
        password.write_text(self.password)
        if postgres.ROOT:
            for path in (self.folder, password):
                shutil.chown(path, postgres.ACCOUNT)
        initdb = self._spawn(
            self.programs / "initdb", "-D", self.folder / "data", "-U", "shop", "-A",
            "scram-sha-256", "-E", "UTF8", "--locale=C", f"--pwfile={password}", "--no-sync",
            end_with=signal.SIGKILL,
        )  # fmt: skip
        if initdb.wait():
            raise ChildProcessError("initdb failed")
        self.start_server()
        environment = os.environ | {"DATABASE_URL": self.conninfo(self.port)}
        migrate = [sys.executable, "manage.py", "migrate", "-v0", "--skip-checks"]
        subprocess.run(migrate, cwd=settings.CHECKOUT, env=environment, check=True)  # noqa: S603
        with self.session() as session:
            session.cursor().executemany(
                "WITH payer AS (INSERT INTO auth_user (username, password, is_superuser,"
                " first_name, last_name, email, is_staff, is_active, date_joined)"
                " VALUES (%s, '', false, '', '', '', false, true, now()) RETURNING id, username)"
                " INSERT INTO shop_account (user_id, token, balance)"
                " SELECT id, username, %s FROM payer",
                [(token, BALANCE) for token in TOKENS],
            )

    @contextmanager
    def shop(self, broken: str = "") -> Iterator[str]:
        """Serve the shop, broken on purpose if that is asked for; give its URL."""
        port = _free_port()
        environment = os.environ | {
            "DATABASE_URL": self.conninfo(self.proxy.port),
            sabotage.VARIABLE: broken,
            "XDG_RUNTIME_DIR": str(self.folder),  # for gunicorn's control socket
            "GUNICORN_CMD_ARGS": "",
        }
        gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:benchmarks.faults.serving"]
        with self.log.open("ab") as log:
            bind = f"--bind=127.0.0.1:{port}"
            master = _leashed(
                [*gunicorn, bind], signal.SIGTERM, environment=environment, output=log
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, master)
            yield url
        finally:
            master.terminate()
            try:
                master.wait(_START)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(master.pid, signal.SIGKILL)
                master.wait()

    def _spawn(self, *command: object, end_with: signal.Signals) -> "subprocess.Popen[bytes]":
        user = postgres.ACCOUNT
        with self.log.open("ab") as log:
            return _leashed(
                [*map(str, command)], end_with, user=user, environment={"LC_ALL": "C"}, output=log
            )


@contextmanager
def world() -> Iterator[World]:
    """Make a world, and leave nothing of it behind."""
    programs = postgres.programs(settings.CHECKOUT / ".postgres")
    with TemporaryDirectory(prefix="shop-faults-") as name:
        Path(name).chmod(0o711)
        folder = Path(name, "server")
        folder.mkdir(mode=0o711)
        port = _free_port()
        made = World(programs, folder, port, Proxy(port))
        try:
            made.create()
            made.proxy.start()
            try:
                yield made
            finally:
                made.proxy.stop()
        finally:
            made.stop_server()


def _leashed(
    command: list[str],
    end_with: signal.Signals,
    *,
    user: str = "",
    environment: dict[str, str],
    output: IO[bytes],
) -> "subprocess.Popen[bytes]":
    return leash.spawn(
        command,
        end_with,
        user=user,
        cwd="/" if user else settings.CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _free_port() -> int:
    chance = secrets.SystemRandom()
    while True:
        port = chance.randrange(20_000, 32_000)  # below the ports that clients are given
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _wait_for(url: str, master: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and master.poll() is None:
        with suppress(httpx.TransportError):
            httpx.get(url, timeout=_START)
            return
        time.sleep(0.05)
    raise ChildProcessError("gunicorn did not start")
