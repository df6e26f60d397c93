"""One PostgreSQL of our own: how it starts and stops, crashes, is lost, and is asked."""

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL

from testproject import postgres

from .processes import START, Process, free_port, unprivileged, write

Session = psycopg.Connection[tuple[object, ...]]

_OPTIONS = {
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "deadlock_timeout": "100ms",
    # Whatever is committed without an fsync stays in memory for long, so that a crash loses it.
    "wal_writer_delay": "10s",
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
}

PRLIMIT = shutil.which("prlimit")
"""The program of Linux that limits what a process may do, while it runs."""

_BESIDE = {
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": r"read\ committed",
}
"""What holds for our own sessions, whatever the shop's role is given."""


@dataclass
class Server:
    """A PostgreSQL server, whose data lies in a folder of its account."""

    programs: Path
    folder: Path
    password: str
    port: int = field(default_factory=free_port)
    process: Process | None = None
    options: dict[str, str] = field(default_factory=dict)
    """What is set beside `_OPTIONS`."""

    @property
    def data(self) -> Path:
        """Where its data lies."""
        return self.folder / f"data-{self.port}"

    @property
    def log(self) -> Path:
        """Where it writes what it has to say."""
        return self.folder.parent / "log"

    def conninfo(self, port: int | None = None, **more: str) -> str:
        """Return what libpq needs to connect: directly, or by another port."""
        return make_conninfo(
            host="127.0.0.1", port=port or self.port, user="shop", password=self.password,
            dbname="postgres", sslmode="disable", gssencmode="disable", connect_timeout=5, **more,
        )  # fmt: skip

    def connect(self, synchronous_commit: str = "local") -> Session:
        """Return a connection for us, that does not pass the proxy."""
        beside = _BESIDE | {"synchronous_commit": synchronous_commit}
        options = " ".join(f"-c {name}={value}" for name, value in beside.items())
        return psycopg.connect(self.conninfo(options=options), autocommit=True)

    def run(self, program: str, *arguments: object) -> None:
        """Run one of PostgreSQL's programs to its end."""
        process = unprivileged(
            self.programs / program, *arguments, log=self.log, end_with=signal.SIGKILL,
            environment={"PGPASSWORD": self.password},
        )  # fmt: skip
        if process.wait(START):
            raise ChildProcessError(f"{program} failed:\n{self.log.read_text()[-2000:]}")

    def initialise(self) -> None:
        """Make the folder of its data."""
        if postgres.ROOT:
            shutil.chown(self.folder, postgres.ACCOUNT)
        password = self.folder / "password"
        write(password, self.password)
        self.run(
            "initdb", "-D", self.data, "-U", "shop", "-A", "scram-sha-256", "-E", "UTF8",
            "--locale=C", f"--pwfile={password}", "--no-sync",
        )  # fmt: skip

    def cheapen_logins(self, session: Session) -> None:
        """Hash the password once and not 4096 times: a fault is followed by many connections."""
        if session.info.server_version >= 160000:
            session.execute("SET scram_iterations = 1")
            session.execute(SQL("ALTER ROLE shop PASSWORD {}").format(self.password))

    def start(self) -> None:
        """Start, recovering after a crash, and wait until it answers."""
        pairs = (_OPTIONS | self.options).items()
        options = [part for name, value in pairs for part in ("-c", f"{name}={value}")]
        command = [self.programs / "postgres", "-D", self.data, "-p", self.port, *options]
        self.process = unprivileged(*command, log=self.log, end_with=signal.SIGINT)
        deadline = time.monotonic() + START
        while True:
            with suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ChildProcessError(f"no PostgreSQL:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def crash(self) -> None:
        """Restart as ``pg_ctl restart -m immediate`` does: without a checkpoint."""
        self.stop(signal.SIGQUIT)
        self.start()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop, by default in the fast way."""
        if self.process:
            self.process.send_signal(number)
            self.process.wait(START)
            self.process = None

    def limit_files(self, pid: int, size: str) -> bool:
        """Make what one of its processes writes to files beyond a size fail, as on a full disk.

        False where there is no such process. It has the account to do that; root may not.
        """
        command = [PRLIMIT, "--pid", pid, f"--fsize={size}:"]
        return unprivileged(*command, log=self.log, end_with=signal.SIGKILL).wait() == 0

    def lose(self) -> None:
        """End at once, as a host does that loses its power, with all that was on it."""
        if self.process is None:
            raise RuntimeError("The server does not run.")
        with self.connect() as session:
            self.process.send_signal(signal.SIGSTOP)  # so that it starts no more of its children
            children = session.execute("SELECT pid FROM pg_stat_activity").fetchall()
            for (pid,) in children:
                with suppress(ProcessLookupError):
                    os.kill(int(str(pid)), signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        self.process = None
        shutil.rmtree(self.data)
