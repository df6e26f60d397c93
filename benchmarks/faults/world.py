"""The processes, all together: PostgreSQL and what is around it, the proxy, and the shop."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory

import psycopg
from django.conf import settings

from testproject import leash, postgres

from . import clock, replication, sabotage, serving
from .bouncer import Bouncer, bouncer
from .checker import BALANCE
from .clients import TOKENS
from .observer import Observer
from .processes import START, Process, await_answer, free_port, leashed
from .proxy import Proxy
from .server import Server
from .setting import Setting

IDLE_BOUND = 1
"""Seconds: ``idle_in_transaction_session_timeout``, which frees the key of a worker that hangs."""

_STRAIGHT = {"DATABASE_VARIANT": "default"}
"""Of the environment: the ways to PostgreSQL are our own here, not the test suite's."""

_ROLE = {
    "idle_in_transaction_session_timeout": f"{IDLE_BOUND}s",
    "client_connection_check_interval": "1s",
    # A table of a few rows is read as a whole, and then at SERIALIZABLE all its readers collide.
    "enable_seqscan": "off",
}


@dataclass
class World:
    """A running PostgreSQL with the shop's tables; `shop` serves the shop on it."""

    server: Server
    """The primary of the moment."""
    proxy: Proxy = field(default_factory=Proxy)
    standby: Server | None = None
    bouncer: Bouncer | None = None
    setting: Setting = field(default_factory=Setting)
    upheavals: int = 0
    """How often all that asked the server has been cut off, or is being cut off now."""
    survived: int = 0
    """How many of these are over."""
    losses: list[float] = field(default_factory=list)
    """When an asynchronous standby took over: seconds since the epoch."""
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    @property
    def clock(self) -> Path:
        """The file that says by how much the shop's clocks are off."""
        return self.server.folder.parent / "clock"

    def observer(self) -> Observer:
        """Return a session that does not pass the proxy."""
        return Observer(lambda: self.server)

    @contextmanager
    def upheaval(self) -> Iterator[None]:
        """Keep other faults from the server as a whole while this one has it.

        Raises:
            ChildProcessError: It failed half-way, and the world is not to be relied on any more.
        """
        with self._one_at_a_time:
            self.upheavals += 1
            try:
                yield
            except psycopg.OperationalError as error:
                raise ChildProcessError("It was not carried through to its end.") from error
            finally:
                self.survived += 1

    def crash(self) -> None:
        """Restart PostgreSQL as ``pg_ctl restart -m immediate`` does."""
        with self.upheaval():
            self.server.crash()

    def fail_over(self, before: Callable[[Server, Server], None] | None = None) -> None:
        """Lose the primary, go on with its standby, and give that one a standby of its own.

        Args:
            before: What is done with the two until then, in place of `replication.catch_up`.
        """
        if self.standby is None:
            raise RuntimeError("There is no standby.")
        mode = self.setting.standby
        with self.upheaval():
            if before:
                before(self.server, self.standby)
            else:
                replication.catch_up(self.server, mode)
            replication.promote(self.server, self.standby)
            self.server = self.standby
            if mode == "async":
                self.losses.append(time.time())
            self._turn()
            self.standby = replication.follow(self.server, mode)

    def restart_bouncer(self, number: signal.Signals) -> None:
        """End PgBouncer with a signal, and start it again."""
        if self.bouncer is None:
            raise RuntimeError("There is no PgBouncer.")
        with self.upheaval():
            self.bouncer.stop(number)
            self.bouncer.start()

    def set_up(self, setting: Setting) -> None:
        """Go on with another setting, for which the shop connects again."""
        with self.server.connect() as session:
            session.execute(
                "ALTER ROLE shop IN DATABASE postgres SET default_transaction_isolation ="
                f" '{setting.isolation}'"
            )
        if setting.standby == "none":
            replication.expect(self.server, "async")
            self._drop_standby()
        elif self.standby is None:
            self.standby = replication.follow(self.server, setting.standby)
        else:
            replication.expect(self.server, setting.standby)
            replication.await_standby(self.server, setting.standby)
        if setting.is_pooled and self.bouncer is None:
            self.bouncer = bouncer(self.server.folder, self.server.log)
        self.setting = setting
        self._turn()

    def _turn(self) -> None:
        port = self.server.port
        if self.setting.is_pooled and self.bouncer:
            self.bouncer.point_to(self.server)
            port = self.bouncer.port
        self.proxy.turn(port)

    def _drop_standby(self) -> None:
        if self.standby:
            self.standby.stop(signal.SIGQUIT)
            shutil.rmtree(self.standby.data)
            self.standby = None

    def create(self) -> None:
        """Make the server's folder, start it, and fill it with the shop's tables and accounts."""
        self.server.initialise()
        self.server.start()
        environment = os.environ | _STRAIGHT | {"DATABASE_URL": self.server.conninfo()}
        migrate = [sys.executable, "manage.py", "migrate", "-v0", "--skip-checks"]
        subprocess.run(migrate, cwd=settings.CHECKOUT, env=environment, check=True)  # noqa: S603
        with self.server.connect() as session:
            self.server.cheapen_logins(session)
            for name, value in _ROLE.items():
                session.execute(f"ALTER ROLE shop IN DATABASE postgres SET {name} = '{value}'")
            session.cursor().executemany(
                "WITH payer AS (INSERT INTO auth_user (username, password, is_superuser,"
                " first_name, last_name, email, is_staff, is_active, date_joined)"
                " VALUES (%s, '', false, '', '', '', false, true, now()) RETURNING id, username)"
                " INSERT INTO shop_account (user_id, token, balance)"
                " SELECT id, username, %s FROM payer",
                [(token, BALANCE) for token in TOKENS],
            )

    @contextmanager
    def shop(
        self, broken: str = "", kinds: Collection[str] = tuple(serving.KINDS)
    ) -> Iterator[dict[str, str]]:
        """Serve the shop, broken on purpose if that is asked for; give its URLs."""
        clock.set_off(self.clock, 0)
        with ExitStack() as stack:
            ports = {kind: free_port() for kind in kinds}
            masters = {
                kind: stack.enter_context(self._served(kind, port, broken))
                for kind, port in ports.items()
            }
            urls = {kind: f"http://127.0.0.1:{port}" for kind, port in ports.items()}
            for kind, master in masters.items():
                await_answer(urls[kind], master)
            yield urls

    @contextmanager
    def _served(self, kind: str, port: int, broken: str) -> Iterator[Process]:
        environment = (
            os.environ
            | _STRAIGHT
            | {
                "DATABASE_URL": self.server.conninfo(self.proxy.port),
                sabotage.VARIABLE: broken,
                clock.VARIABLE: str(self.clock),
                serving.VARIABLE: kind,
                "SHOP_POOL": str(int(kind == "asyncio")),  # a connection for each of its tasks
                "GUNICORN_CMD_ARGS": "",
            }
        )
        master = leashed(
            [sys.executable, "-m", "gunicorn", "-c", "python:benchmarks.faults.serving",
             f"--bind=127.0.0.1:{port}"],
            self.server.log, signal.SIGTERM, environment=environment,
        )  # fmt: skip
        try:
            yield master
        finally:
            leash.end(master, START)

    def end(self) -> None:
        """End all that runs."""
        if self.bouncer:
            self.bouncer.stop()
        self._drop_standby()
        self.server.stop(signal.SIGQUIT)


@contextmanager
def world() -> Iterator[World]:
    """Make a world, and leave nothing of it behind."""
    programs = postgres.programs(settings.CHECKOUT / ".postgres")
    with TemporaryDirectory(prefix="shop-faults-") as name:
        Path(name).chmod(0o711)
        folder = Path(name, "server")
        folder.mkdir(mode=0o711)
        made = World(Server(programs, folder, token_urlsafe()))
        made.proxy.start()
        try:
            made.create()
            made.set_up(Setting())
            yield made
        finally:
            made.end()
            made.proxy.stop()
