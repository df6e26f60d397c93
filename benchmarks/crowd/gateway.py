"""The servers: gunicorn for payments, gunicorn for all else, and nginx before them."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings

from benchmarks import database
from testproject import leash

CONFIGURATION = settings.CHECKOUT / "deploy" / "nginx.conf"

PORT, PAYMENTS_PORT, REST_PORT = 18000, 18001, 18002
"""What ``deploy/nginx.conf`` says."""

_START = 30.0
"""Seconds a server has to start."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The shop behind nginx."""

    url: str
    processes: dict[str, int]
    """Process id of each server's master, by its name."""

    def cpu_seconds(self) -> dict[str, float]:
        """Tell what each server has used of the processors until now, its workers included."""
        used = {name: _cpu_seconds(_session(pid)) for name, pid in self.processes.items()}
        postmaster = _postmaster()
        return used | ({"PostgreSQL": _cpu_seconds(_children(postmaster))} if postmaster else {})


@contextmanager
def watched() -> Iterator[list[int]]:
    """Count the clients' connections twice a second while the block lasts."""
    counts: list[int] = []
    end = threading.Event()

    def watch() -> None:
        while not end.wait(0.5):
            counts.append(connections())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield counts
    finally:
        end.set()
        watcher.join()


def connections() -> int:
    """Count the clients' connections that nginx holds."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = f"0100007F:{PORT:04X}"
    return sum(fields[1] == local and fields[3] == "01" for fields in map(str.split, lines))


def raise_limits() -> int:
    """Let this process and its children open as many files as they may; give the number."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextmanager
def serve(workers: int, threads: int) -> Iterator[Gateway]:
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
            "payments": servers.enter_context(_gunicorn(PAYMENTS_PORT, workers, threads, folder)),
            "rest": servers.enter_context(_gunicorn(REST_PORT, 1, threads, folder)),
            "nginx": servers.enter_context(_server(arguments, folder / "nginx.log", PORT)),
        }
        yield Gateway(f"http://127.0.0.1:{PORT}", processes)


def _gunicorn(port: int, workers: int, threads: int, folder: Path) -> AbstractContextManager[int]:
    command = [
        *(sys.executable, "-m", "gunicorn", "testproject.wsgi", f"--bind=127.0.0.1:{port}"),
        *("--worker-class=gthread", f"--workers={workers}", f"--threads={threads}"),
        # In a burst all requests are let in, and wait for a thread.
        *("--worker-connections=20000", "--backlog=16384", "--timeout=120"),
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
        master.terminate()
        try:
            master.wait(_START)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(master.pid, signal.SIGKILL)
            master.wait()


def _wait_for(port: int, master: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and master.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise ChildProcessError(f"A server did not start. {log.read_text(errors='replace')[-1500:]}")


def _session(leader: int) -> set[int]:
    return {pid for pid in _processes() if _stat(pid)[3:4] == [str(leader)]}


def _children(parent: int) -> set[int]:
    return {parent} | {pid for pid in _processes() if _stat(pid)[1:2] == [str(parent)]}


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _postmaster() -> int | None:
    """Give the process id of PostgreSQL's first process, where it runs on this machine."""
    pid = int(database.value("SELECT pg_backend_pid()"))
    is_here = _stat(pid) and Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
    return int(_stat(pid)[1]) if is_here else None


def _cpu_seconds(pids: Iterable[int]) -> float:
    """Add up what processes have used, and their children that have ended."""
    ticks = sum(int(field) for pid in pids for field in _stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Give the fields of a process behind its name: its state, its parent, and so on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
