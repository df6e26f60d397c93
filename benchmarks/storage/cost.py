"""What each index adds to a live request: bytes of WAL, and time.

The WAL counts twice: just after a checkpoint, when the first change of a page logs all of it, which
is where an index in random order costs most; and when all pages have been logged.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Final

from benchmarks import database, tables, traffic
from benchmarks.designs import Design
from benchmarks.rows import Rows

from .indexes import EXPIRY, KEY, SCOPE

_ALL: Final = EXPIRY | KEY | SCOPE
ADDED: Final = (
    (),
    ("expiry_btree",),
    ("expiry_btree_seconds",),
    ("expiry_brin_32",),
    ("key_btree",),
    ("key_hash",),
    ("key_btree_4",),
    ("key_bloom",),
    ("scope_btree",),
    ("scope_btree_expiry",),
    ("expiry_btree", "scope_btree"),
    ("expiry_btree", "scope_btree", "key_hash"),
)
DESIGNS: Final = {
    " + ".join(_ALL[name] for name in names) or "primary key only": Design(
        schema="_".join(("cost", *names)), indexes={name: _ALL[name] for name in names}
    )
    for names in ADDED
}

_TURN: Final = 10
"""Requests in a turn."""

_COLD: Final = 200
"""Requests just after a checkpoint: few, so that they meet pages that have not been logged."""


def compare(rows: Rows, requests: int) -> None:
    """Print WAL and median time of a request for every index, measured in turns."""
    few = replace(rows, count=max(rows.count // 10, 1000))
    for design in DESIGNS.values():
        design.create()
        few.fill()
    caller = traffic.Caller(rows.seed)
    # The fsync takes longer than all else, differs from commit to commit, and is always the same.
    database.execute("SET synchronous_commit = off")
    database.execute("CHECKPOINT")
    cold = {name: cold_wal(design, caller.request, requests) for name, design in DESIGNS.items()}
    times = _in_turns(caller, requests)
    warm = {name: warm_wal(design, caller.request, requests) for name, design in DESIGNS.items()}
    database.execute("RESET synchronous_commit")
    for design in DESIGNS.values():
        design.drop()
    medians = {name: median(times[name]) for name in DESIGNS}
    bare = medians["primary key only"]
    tables.show(
        f"A request's WAL and time, {few.count:,} rows, {requests:,} requests each, without fsync",
        ("indexes", "WAL bytes", "after a checkpoint", "its full pages", "median ms", "ratio"),
        [
            (name, warm[name], *cold[name], medians[name] * 1000, medians[name] / bare)
            for name in DESIGNS
        ],
    )


def _in_turns(caller: traffic.Caller, requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in DESIGNS}
    for _ in range(requests // _TURN):
        for name, design in DESIGNS.items():
            design.use()
            for _ in range(_TURN):
                began = time.perf_counter()
                caller.request()
                times[name].append(time.perf_counter() - began)
    return times


def cold_wal(design: Design, request: Callable[[], object], requests: int) -> tuple[float, float]:
    """Return bytes and full pages of WAL per request, for a few of them after a checkpoint."""
    few = min(requests, _COLD)
    design.use()
    before = _wal()
    for _ in range(few):
        request()
    size, pages = (now - then for now, then in zip(_wal(), before, strict=True))
    return size / few, pages / few


def warm_wal(design: Design, request: Callable[[], object], requests: int) -> float:
    """Return bytes of WAL per request once all pages have been logged; empties the table."""
    design.use()
    database.execute("TRUNCATE idempotency_key")
    for _ in range(requests // 2):
        request()
    before = _wal()
    for _ in range(requests):
        request()
    return (_wal()[0] - before[0]) / requests


def _wal() -> tuple[int, int]:
    """Give bytes and full pages of WAL so far."""
    database.flush_statistics()
    ((size, pages),) = database.fetch(
        "SELECT pg_current_wal_insert_lsn() - '0/0', wal_fpi FROM pg_stat_wal"
    )
    return int(size), int(pages)
