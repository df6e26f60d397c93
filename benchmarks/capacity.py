"""What a load takes: ``python -m benchmarks.capacity --requests 1000 --retries 0.1``.

A model of a few multiplications. Its constants were measured by ``benchmarks.crowd``, of a shop
whose view takes one payment, and by ``benchmarks.storage``: replace `SHOP` with what you measure.
"""

import argparse
from dataclasses import dataclass
from math import ceil

DAY = 86_400
"""Seconds."""

_PURGED = 14_900
"""Rows a second, see ``docs/storage.md``."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one request takes: processor seconds, and bytes without the answer's own."""

    app_first: float
    app_replay: float
    database_first: float
    database_replay: float
    gateway: float
    wal_first: int
    """Of the key, its answer's row and the view's own insert and update."""
    row: int
    """On disk, with its share of the indexes."""


SHOP = Costs(
    app_first=0.0051,
    app_replay=0.0033,
    database_first=0.0020,
    database_replay=0.0007,
    gateway=0.0001,
    wal_first=1_250,
    row=290,
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for."""

    requests: float
    """A second, retries included."""
    retries: float
    """Share of the requests that are retries, from 0 to 1."""
    answer: int
    """Bytes of a stored answer, with its headers."""
    life: float = DAY
    """Seconds that a key lives, see the setting ``TTL``."""
    busy: float = 0.7
    """Share of the processors that may be used: beyond it, queues grow faster than load."""
    threads: int = 8
    """Of a worker process."""

    @property
    def firsts(self) -> float:
        """First requests a second."""
        return self.requests * (1 - self.retries)


@dataclass(frozen=True, slots=True)
class Need:
    """What it takes."""

    workers: int
    """Processes, with a core each."""
    connections: int
    database_cores: int
    wal_bytes_a_second: float
    flushes_a_second: float
    """At most: commits that come together share one."""
    disk_bytes: float
    """Of the table, when as many keys expire as come."""
    purge_share: float
    """Of the time that the purge is at work."""


def need(target: Target, costs: Costs = SHOP) -> Need:
    """Work out what a target takes."""
    replays = target.requests - target.firsts
    app = target.firsts * costs.app_first + replays * costs.app_replay
    database = target.firsts * costs.database_first + replays * costs.database_replay
    workers = ceil(app / target.busy)
    return Need(
        workers=workers,
        connections=workers * target.threads,
        database_cores=ceil(database / target.busy),
        wal_bytes_a_second=target.firsts * (costs.wal_first + target.answer),
        flushes_a_second=target.firsts,
        # A fifth more for dead rows that autovacuum has not come to, and for pages half full.
        disk_bytes=1.2 * target.firsts * target.life * (costs.row + target.answer),
        purge_share=target.firsts / _PURGED,
    )


def most(cores: int, retries: float, costs: Costs = SHOP) -> float:
    """Give the requests a second that keep as many cores busy, with all on one machine."""
    first = costs.app_first + costs.database_first + costs.gateway
    replay = costs.app_replay + costs.database_replay + costs.gateway
    return cores / ((1 - retries) * first + retries * replay)


def main() -> None:
    """Print what a target takes."""
    parser = argparse.ArgumentParser("python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--requests", type=float, default=1000, help="a second: 1000")
    parser.add_argument("--retries", type=float, default=0.1, help="share of them: 0.1")
    parser.add_argument("--answer", type=int, default=800, help="bytes, with headers: 800")
    parser.add_argument("--hours", type=float, default=24, help="that a key lives: 24")
    parser.add_argument("--cores", type=int, default=2, help="of one machine for all: 2")
    arguments = parser.parse_args()
    if not 0 <= arguments.retries < 1:
        parser.error("--retries is a share from 0 to below 1.")
    life = arguments.hours * 3600
    found = need(Target(arguments.requests, arguments.retries, arguments.answer, life))
    wal = found.wal_bytes_a_second
    print(f"workers, a core each      {found.workers:,}")
    print(f"database connections      {found.connections:,}")
    print(f"cores of the database     {found.database_cores:,}")
    print(f"WAL                       {wal / 1e6:,.2f} MB a second")
    print(f"WAL of a request          {wal / arguments.requests:,.0f} bytes")
    print(f"flushes of it             {found.flushes_a_second:,.0f} a second at most")
    print(f"table and indexes         {found.disk_bytes / 1e9:,.1f} GB")
    print(f"the purge is at work      {found.purge_share:.0%} of the time")
    most_here = most(arguments.cores, arguments.retries)
    print(f"all on {arguments.cores:,} cores, at most  {most_here:,.0f} requests a second")


if __name__ == "__main__":
    main()
