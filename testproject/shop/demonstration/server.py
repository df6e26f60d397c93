"""The shop served by gunicorn, in a child process that lives no longer than we do."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from django.conf import settings
from django.db import connection

from testproject import leash

HOST: Final = "127.0.0.1"
THREADS: Final = 8
"""Requests that each worker can serve at the same time."""

# A worker that sleeps in the middle of a slow payment has the insert as its latest statement.
IN_PAYMENT: Final = """
    SELECT application_name FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'shop-%'
       AND state = 'idle in transaction' AND query LIKE 'INSERT INTO "shop_payment"%'
"""


class ServerFailed(Exception):
    """The shop is not served; the message says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running gunicorn: the master, and the workers in its process group."""

    port: int
    master: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def worker_in_payment(self) -> int:
        """Wait until a worker is in the middle of a slow payment, and give its pid.

        Raises:
            TimeoutError: None is within 10 seconds.
        """
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with connection.cursor() as cursor:
                cursor.execute(IN_PAYMENT)
                pids = [int(name.removeprefix("shop-")) for (name,) in cursor.fetchall()]
            for pid in pids:
                with suppress(ProcessLookupError):
                    if os.getpgid(pid) == self.master.pid:  # and it is not another demo's
                        return pid
            time.sleep(0.01)
        raise TimeoutError("no worker was seen in the middle of the payment")

    def wait_for_answer(self) -> None:
        """Wait until a worker answers.

        Raises:
            ServerFailed: The workers cannot start.
        """
        # The socket listens already: the request waits there until a worker comes, or all fail.
        with closing(HTTPConnection(HOST, self.port, timeout=20)) as http:
            try:
                http.request("GET", "/")
                http.getresponse()
            except (OSError, HTTPException) as error:
                raise ServerFailed(f"gunicorn did not start. {self._end_of_log()}") from error

    def wait_for_end(self) -> None:
        """Wait while it serves: for ever, if all is well.

        Raises:
            ServerFailed: It ended by itself.
        """
        self.master.wait()
        raise ServerFailed(f"gunicorn has ended. {self._end_of_log()}")

    def stop(self) -> None:
        """End master and workers."""
        with suppress(subprocess.TimeoutExpired):
            leash.end(self.master, 10)

    def _end_of_log(self) -> str:
        return f"Its log ends so:\n{self.log.read_text(errors='replace').strip()[-1500:]}"


@contextmanager
def serve(port: int, workers: int) -> Iterator[Server]:
    """Serve the shop on a port, or on a free one if that is taken.

    Raises:
        ServerFailed: The port cannot be used, or gunicorn does not start.
    """
    with TemporaryDirectory(prefix="shop-demo-") as folder:
        server = _start(port, workers, Path(folder))
        try:
            server.wait_for_answer()
            yield server
        finally:
            server.stop()


def _start(port: int, workers: int, folder: Path) -> Server:
    log = folder / "log"
    with _listen(port) as listener, log.open("wb") as output:
        socket_number = listener.fileno()  # handed over, so that nobody can take the port meanwhile
        gunicorn: list[str | Path] = [
            sys.executable,
            "-m",
            "gunicorn",
            "testproject.wsgi",
            "--worker-class=gthread",
        ]
        gunicorn += [f"--bind=fd://{socket_number}", "--graceful-timeout=3"]
        gunicorn += [f"--workers={workers}", f"--threads={THREADS}"]
        # gunicorn's control socket, which it would share with every other one, goes to our folder.
        environment = {**os.environ, "GUNICORN_CMD_ARGS": "", "XDG_RUNTIME_DIR": str(folder)}
        master = leash.spawn(
            gunicorn,
            signal.SIGTERM,
            cwd=settings.CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[socket_number],
            start_new_session=True,  # a process group of its own, which Ctrl-C does not reach
        )
        return Server(listener.getsockname()[1], master, log)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OverflowError as error:
        raise ServerFailed(f"{port} is not a port.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return socket.create_server((HOST, 0))
        raise ServerFailed(f"Port {port} cannot be used: {error.strerror}") from error
