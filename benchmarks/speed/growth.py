"""Print whether requests take longer, or write more, where the table of the keys is large.

Each size is a database of its own on the same server, filled as traffic leaves it, and a process
that calls the application without a socket. All take turns, in an order that changes from round to
round. The first size is what the others are compared with. Small answers, so that many rows fit.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import database, tables
from benchmarks.rows import SMALL_BODY, SMALL_HEADERS, Rows

from . import wal
from .copies import Copy, copied
from .peers import OURS, PEERS
from .process import Caller, calling, new_keys
from .ratios import FIRST, REPLAY, Times, ratio
from .served import Place

GOAL: Final = 1.10
"""The most that p50 may grow to, as a ratio over the smallest table."""


@dataclass(eq=False, slots=True)
class Size:
    """A table of so many rows, and what requests to it took."""

    rows: int
    copy: Copy
    caller: Caller
    times: dict[str, Times] = field(default_factory=lambda: {FIRST: Times(), REPLAY: Times()})

    def send(self, requests: int) -> None:
        """Let it have its turn."""
        keys = new_keys(requests)
        for times in self.times.values():
            times.rounds.append(self.caller.burst(keys))


def main() -> None:
    """Fill, measure in turns, and print."""
    arguments = _arguments()
    with database.own_database(), TemporaryDirectory(prefix="growth-") as folder:
        tables.begin(arguments)
        place = Place(PEERS[OURS], Path(sys.executable), Path(folder))
        place.create_tables()
        with ExitStack() as stack:
            sizes = [
                stack.enter_context(_filled(place, number, rows, arguments.seed))
                for number, rows in enumerate(arguments.rows)
            ]
            _measure(sizes, arguments)
            _show_times(sizes, arguments)
            _show_indexes(sizes)
            _show_wal(sizes, arguments.requests)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.speed.growth", description=__doc__)
    number = tables.at_least(1)
    parser.add_argument(
        "--rows", nargs="+", type=tables.at_least(1000), default=[10_000, 100_000],
        help="of each table: 10000 100000",
    )  # fmt: skip
    parser.add_argument("--rounds", type=number, default=30, help="in which each has a turn: 30")
    parser.add_argument("--requests", type=number, default=100, help="of each kind in a turn: 100")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    return parser.parse_args()


@contextmanager
def _filled(place: Place, number: int, count: int, seed: int) -> Iterator[Size]:
    """Have a database with so many rows, and who sends requests to it."""
    with copied(str(number), place.peer.schema) as copy:
        with copy.visited():
            Rows(
                count=count,
                seed=seed,
                now=database.value("SELECT now()"),
                headers=SMALL_HEADERS,
                body=SMALL_BODY,
            ).fill()
        with calling(replace(place, more={"DATABASE_URL": copy.url()})) as caller:
            yield Size(count, copy, caller)


def _measure(sizes: list[Size], arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)  # noqa: S311  # repeatable, not secret
    database.execute("CHECKPOINT")
    for size in sizes:
        size.caller.burst(new_keys(arguments.requests))  # whatever is slow only once
    for _ in tables.progress(range(arguments.rounds), "rounds"):
        for size in chance.sample(sizes, len(sizes)):
            size.send(arguments.requests)


def _show_times(sizes: list[Size], arguments: argparse.Namespace) -> None:
    smallest = sizes[0].times
    rows = []
    for size in sizes:
        row = [f"{size.rows:,}"]
        for kind, times in size.times.items():
            row += [f"{1000 * times.p50:.2f}", str(ratio(times, smallest[kind]))]
        rows.append(row)
    rows.append(["goal", *["", f"{GOAL:.2f}"] * 2])
    tables.show(
        f"Time by the rows in the table, {arguments.rounds} rounds of {arguments.requests} "
        "requests: p50, and its ratio (and between which the middle half of the rounds lies)",
        ("rows", "first, ms", "ratio", "replay, ms", "ratio"),
        rows,
    )


def _show_indexes(sizes: list[Size]) -> None:
    """Print what the table's parts take on disk."""
    columns = {}
    for size in sizes:
        with size.copy.visited():
            found = dict(database.fetch(_BYTES))
        columns[size] = {part: value / size.rows for part, value in found.items()}
    parts = dict.fromkeys(part for column in columns.values() for part in column)
    tables.show(
        "Bytes a row", ("part", *(f"{size.rows:,} rows" for size in sizes)),
        [(part, *(f"{column[part]:.1f}" for column in columns.values())) for part in parts],
    )  # fmt: skip


_BYTES = """
    SELECT relname::text, pg_relation_size(oid)
      FROM pg_class WHERE oid = 'idempotency_key'::regclass
    UNION ALL
    (SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index
      WHERE indrelid = 'idempotency_key'::regclass ORDER BY 1)
"""


def _show_wal(sizes: list[Size], requests: int) -> None:
    """Print what requests write just after a checkpoint, when the first change logs all a page."""
    if not wal.can_be_told():
        tables.console.print("left out: the WAL by its parts needs PostgreSQL 16, pg_walinspect")
        return
    columns = []
    for size in sizes:
        with size.copy.visited():
            send = partial(size.caller.burst, new_keys(requests))
            columns.append({FIRST: wal.written(send), REPLAY: wal.written(send)})
    names = dict.fromkeys((kind, part) for it in columns for kind in it for part in it[kind])
    none = wal.Bytes()
    tables.show(
        f"Bytes of WAL, {requests} requests after a checkpoint: records + images of whole pages",
        ("request, and part", *(f"{size.rows:,} rows" for size in sizes)),
        [
            (f"{kind}, {part}", *(it[kind].get(part, none).each(requests) for it in columns))
            for kind, part in sorted(names, key=lambda it: (it[0], it[1] == wal.TOTAL))
        ],
    )


if __name__ == "__main__":
    main()
