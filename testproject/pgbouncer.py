"""PgBouncer in transaction mode before a PostgreSQL, for the suite's variant of that name.

Who asks first starts it, on loopback, and it ends with that process: for the test suite that is
pytest's first. The processes which that one starts learn of it from their environment.
"""

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from testproject import leash, postgres

HOST = "127.0.0.1"
PORT = "SHOP_PGBOUNCER_PORT"
"""The variable of the environment that tells where it listens."""

CONFIGURATION = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 60
max_client_conn = 1000
"""
_SBIN = ("/usr/sbin", "/usr/local/sbin")
"""Where Debian has it, which is not on the PATH of everybody."""


def before(conninfo: dict[str, Any]) -> dict[str, Any]:
    """Give the way to a PostgreSQL by PgBouncer, starting that unless a parent has.

    Args:
        conninfo: The way without it, in libpq's words.

    Raises:
        ImproperlyConfigured: The program is missing or does not start, or the way has no password.
    """
    if not os.environ.get(PORT):
        os.environ[PORT] = str(_start(conninfo))
    return conninfo | {"host": HOST, "port": os.environ[PORT]}


def program() -> str | None:
    """Give PgBouncer's path; None where it is not installed."""
    return shutil.which("pgbouncer", path=os.pathsep.join([*os.get_exec_path(), *_SBIN]))


def _start(conninfo: dict[str, Any]) -> int:
    path = program()
    if path is None:
        raise ImproperlyConfigured(
            "DATABASE_VARIANT=pgbouncer needs the program pgbouncer, and there is none on the PATH:"
            " install it ('apt-get install pgbouncer'), or choose another variant."
        )
    if not conninfo.get("password"):
        raise ImproperlyConfigured(
            "DATABASE_VARIANT=pgbouncer needs a DATABASE_URL with a password: PgBouncer asks its "
            "clients for it, and gives it to PostgreSQL."
        )
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="shop-pgbouncer-") as name:  # read once, at the start
        folder = Path(name)
        server = _spawn(Path(path), folder, port, conninfo)
        atexit.register(_stop, os.getpid(), server)
        deadline = time.monotonic() + 30
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection((HOST, port)):
                return port
            time.sleep(0.02)
        log = (folder / "log").read_text(errors="replace")
    raise ImproperlyConfigured(f"PgBouncer did not start. It says:\n{log[-1500:]}")


def _stop(starter: int, server: "subprocess.Popen[bytes]") -> None:
    if os.getpid() == starter:  # and not a child that was forked, which leaves by the same way
        server.kill()
        server.wait()


def _spawn(
    path: Path, folder: Path, port: int, conninfo: dict[str, Any]
) -> "subprocess.Popen[bytes]":
    configuration, users = folder / "pgbouncer.ini", folder / "users"
    server = {"host": conninfo.get("host") or HOST, "port": conninfo.get("port") or "5432"}
    configuration.write_text(CONFIGURATION.format(**server, listen=port, folder=folder))
    account = (conninfo["user"], conninfo["password"])
    users.touch(mode=0o600)
    users.write_text(" ".join('"' + part.replace('"', '""') + '"' for part in account))
    for ours in (folder, configuration, users) if postgres.ROOT else ():
        shutil.chown(ours, postgres.ACCOUNT)  # PgBouncer refuses to be root
    with (folder / "log").open("wb") as log:
        return leash.spawn(
            [path, configuration],
            SIGKILL,  # what any other signal waits for depends on the version
            user=postgres.ACCOUNT,
            cwd="/",
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests, which then still need it
        )


def _free_port() -> int:
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # below the ports that clients are given
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
