"""The servers: gunicorn for payments, gunicorn for all else, and nginx before them."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings

from testproject import leash

CONFIGURATION = settings.CHECKOUT / "deploy" / "nginx.conf"

PORT, PAYMENTS_PORTS, REST_PORT = 18000, (18001, 18002), 18009
"""What ``deploy/nginx.conf`` says."""

_START = 30.0
"""Seconds a server has to start."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The shop behind nginx."""

    url: str
    processes: dict[str, int]
    """Process id of each server's master, by its name; its workers are its children."""


def raise_limits() -> int:
    """Let this process and its children open as many files as they may; give the number."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextmanager
def serve(threads: int) -> Iterator[Gateway]:
    """Serve the shop, and end all servers in the end.

    Raises:
        SystemExit: nginx is not installed.
        ChildProcessError: A server does not start.
    """
    nginx = shutil.which("nginx", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin"]))
    if nginx is None:
        raise SystemExit("This benchmark needs nginx, and there is none: apt-get install nginx")
    with TemporaryDirectory(prefix="shop-crowd-") as name, ExitStack() as servers:
        folder = Path(name)
        folder.chmod(0o711)
        arguments = [nginx, "-p", name, "-c", str(CONFIGURATION), "-g", "daemon off;"]
        processes = {
            **{
                f"payments {number}": servers.enter_context(_gunicorn(port, threads, folder))
                for number, port in enumerate(PAYMENTS_PORTS, 1)
            },
            "rest": servers.enter_context(_gunicorn(REST_PORT, threads, folder)),
            "nginx": servers.enter_context(_server(arguments, folder / "nginx.log", PORT)),
        }
        yield Gateway(f"http://127.0.0.1:{PORT}", processes)


def _gunicorn(port: int, threads: int, folder: Path) -> AbstractContextManager[int]:
    command = [
        *(sys.executable, "-m", "gunicorn", "benchmarks.crowd.bare", f"--bind=127.0.0.1:{port}"),
        *("--worker-class=gthread", "--workers=1", f"--threads={threads}"),
        # In a burst all requests are let in, and wait for a thread.
        *("--worker-connections=20000", "--backlog=16384", "--timeout=120"),
        # Longer than nginx keeps a connection that rests (60 s), so that it is nginx which closes
        # it. A worker that closes one just as nginx sends a request on it costs that request a 502.
        "--keep-alive=75",
    ]
    return _server(command, folder / f"gunicorn-{port}.log", port)


@contextmanager
def _server(command: list[str], log: Path, port: int) -> Iterator[int]:
    """Run a server while the block lasts; give the process id of its master."""
    environment = {**os.environ, "GUNICORN_CMD_ARGS": "", "XDG_RUNTIME_DIR": str(log.parent)}
    with log.open("wb") as output:
        master = leash.spawn(
            command,
            signal.SIGTERM,
            cwd=settings.CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_for(port, master, log)
        yield master.pid
    finally:
        leash.end(master, _START)


def _wait_for(port: int, master: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and master.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise ChildProcessError(f"A server did not start. {log.read_text(errors='replace')[-1500:]}")
