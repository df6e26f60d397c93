"""PgBouncer in transaction mode, between the proxy and PostgreSQL."""

import shutil
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .processes import START, Process, free_port, unprivileged, write
from .server import Server

_CONFIGURATION = """
[databases]
postgres = host=127.0.0.1 port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 30
max_client_conn = 300
auth_type = md5
auth_file = {users}
server_login_retry = 0.1
ignore_startup_parameters = extra_float_digits
"""


@dataclass
class Bouncer:
    """A PgBouncer that passes on to one server at a time."""

    program: str
    folder: Path
    log: Path
    port: int = field(default_factory=free_port)
    process: Process | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        configuration = self.folder / "pgbouncer.ini"
        self.process = unprivileged(
            self.program, "-q", configuration, log=self.log, end_with=signal.SIGTERM
        )
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise ChildProcessError(f"no PgBouncer:\n{self.log.read_text()[-2000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: at once, whatever passes through it."""
        if self.process:
            self.process.send_signal(number)
            self.process.wait(START)
            self.process = None

    def point_to(self, server: Server) -> None:
        """Pass on to a server from now on."""
        users = self.folder / "pgbouncer.users"
        write(users, f'"shop" "{server.password}"\n')
        values = {"server": server.port, "port": self.port, "users": users}
        write(self.folder / "pgbouncer.ini", _CONFIGURATION.format(**values))
        if self.process:
            self.process.send_signal(signal.SIGHUP)
        else:
            self.start()


def bouncer(folder: Path, log: Path) -> Bouncer:
    """Return a PgBouncer that has not been started.

    Raises:
        FileNotFoundError: There is none on the PATH.
    """
    program = shutil.which("pgbouncer")
    if program is None:
        raise FileNotFoundError("There is no pgbouncer on the PATH: install it, or do without.")
    return Bouncer(program, folder, log)
