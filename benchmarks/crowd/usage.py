"""What requests take: processor time of each server, and WAL."""

import os
import resource
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import database

from .gateway import PORT, Gateway


@dataclass(slots=True)
class Usage:
    """What was used while a block lasted."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By server, with ``k9`` for the clients; without PostgreSQL where it runs elsewhere."""
    wal_bytes: int = 0
    """Of the whole server."""
    connections: list[int] = field(default_factory=list)
    """The clients' connections that nginx held, twice a second."""

    @property
    def most_connections(self) -> int:
        """Most of them at a time."""
        return max(self.connections, default=0)


def total(parts: Sequence[Usage]) -> Usage:
    """Add up what several blocks have used."""
    names = {name for part in parts for name in part.cpu_seconds}
    return Usage(
        {name: sum(part.cpu_seconds.get(name, 0) for part in parts) for name in names},
        sum(part.wal_bytes for part in parts),
    )


@contextmanager
def measured(served: Gateway) -> Iterator[Usage]:
    """Fill in what the block has used, when it is over."""
    usage, end = Usage(), threading.Event()

    def watch() -> None:
        while not end.wait(0.5):
            usage.connections.append(_connections())

    watcher = threading.Thread(target=watch)
    used, wal = _cpu(served), _wal()
    watcher.start()
    try:
        yield usage
    finally:
        end.set()
        watcher.join()
    usage.cpu_seconds = {who: value - used[who] for who, value in _cpu(served).items()}
    usage.wal_bytes = _wal() - wal


def _cpu(served: Gateway) -> dict[str, float]:
    used: dict[str, float] = defaultdict(float)
    for name, pid in served.processes.items():
        used[name.partition(" ")[0]] += _cpu_seconds(_session(pid))
    clients = resource.getrusage(resource.RUSAGE_CHILDREN)  # the servers are still running
    used["k9"] = clients.ru_utime + clients.ru_stime
    if postmaster := _postmaster():
        used["PostgreSQL"] = _cpu_seconds(_children(postmaster))
    return used


def _wal() -> int:
    return int(database.value("SELECT pg_current_wal_insert_lsn() - '0/0'"))


def _connections() -> int:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = f"0100007F:{PORT:04X}"
    return sum(fields[1] == local and fields[3] == "01" for fields in map(str.split, lines))


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
