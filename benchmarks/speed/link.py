"""Print what a first request and a replay take where the database is far away.

Between the application and the database, or PgBouncer before it, lies a link that passes on all
bytes late. One request at a time is sent, without a socket of HTTP; every place has its turn in
every round. A round trip is counted where the application sends something after it was answered.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks import database, tables
from testproject import pgbouncer

from .copies import Copy, copied
from .peers import BARE, OURS, PEERS
from .process import Caller, calling, new_keys
from .proxy import Link, link
from .ratios import FIRST, REPLAY, Times, ratio
from .served import Place

PGBOUNCER: Final = "pgbouncer"
WAYS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "server-side-binding": {"server_side_binding": True},
    PGBOUNCER: {},
}
"""By the name of the way, what it puts into ``OPTIONS``."""

GOAL: Final = 1
"""The most round trips that may be added to a first request."""

_KINDS: Final = {BARE: (FIRST,), OURS: (FIRST, REPLAY)}
_TRIPS = 300
"""Round trips of nothing else, to see how long one is."""


@dataclass(slots=True)
class Kind:
    """What was measured of one kind of request."""

    times: Times = field(default_factory=Times)
    round_trips: int = 0

    @property
    def trips(self) -> float:
        """Round trips of one request."""
        return self.round_trips / len(self.times.all)


@dataclass(slots=True)
class Road:
    """A variant, and the link by which it comes to its database."""

    link: Link
    url: str
    caller: Caller
    kinds: dict[str, Kind]

    def send(self, keys: list[str]) -> None:
        """Let it have its turn."""
        for kind in self.kinds.values():
            before = self.link.round_trips
            kind.times.rounds.append(self.caller.burst(keys))
            kind.round_trips += self.link.round_trips - before

    def length(self) -> float:
        """Give the milliseconds of one round trip."""
        seconds = []
        with psycopg.connect(self.url, autocommit=True, prepare_threshold=None) as session:
            for _ in range(_TRIPS):
                begin = perf_counter()
                session.execute("SELECT 1")
                seconds.append(perf_counter() - begin)
        return 1000 * median(seconds)


Roads = Mapping[str, Road]
"""By the variant's name."""


def main() -> None:
    """Measure in turns, and print."""
    arguments = _arguments()
    with database.own_database(), TemporaryDirectory(prefix="link-") as folder:
        tables.begin(arguments)
        with ExitStack() as stack:
            copies = {}
            for name in (BARE, OURS):
                place = Place(PEERS[name], Path(sys.executable), Path(folder))
                place.create_tables()
                copies[place] = stack.enter_context(copied(name, place.peer.schema))
            roads = {
                (way, delay): {
                    place.peer.name: stack.enter_context(_road(place, copy, way, delay))
                    for place, copy in copies.items()
                }
                for way in arguments.ways
                for delay in arguments.delays
            }
            _measure(list(roads.values()), arguments)
            _show(roads, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.speed.link", description=__doc__)
    number = tables.at_least(1)
    ways = [way for way in WAYS if way != PGBOUNCER or pgbouncer.program()]
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=ways, help="all, of what is installed"
    )
    parser.add_argument(
        "--delays", nargs="+", type=float, default=[0, 0.5, 1], help="ms each way: 0 0.5 1"
    )
    parser.add_argument("--rounds", type=number, default=30, help="in which each has a turn: 30")
    parser.add_argument("--requests", type=number, default=20, help="of each kind in a turn: 20")
    parser.add_argument("--seed", type=int, default=1, help="of the order: 1")
    return parser.parse_args()


@contextmanager
def _road(place: Place, copy: Copy, way: str, delay: float) -> Iterator[Road]:
    """Have a process that calls the variant's application, at the end of a link."""
    conninfo = conninfo_to_dict(copy.url())
    if way == PGBOUNCER:
        conninfo = pgbouncer.before(conninfo)
    target = str(conninfo.get("host") or "127.0.0.1"), int(conninfo.get("port") or 5432)
    # PgBouncer refuses start-up options; and none of the bytes are to be encrypted.
    options = {"options": "", "sslmode": "disable", "gssencmode": "disable", **WAYS[way]}
    with link(*target, delay / 1000) as made:
        url = copy.url(host="127.0.0.1", port=made.port)
        more = {"DATABASE_URL": url, "SPEED_OPTIONS": json.dumps(options)}
        with calling(replace(place, more=more)) as caller:
            kinds = {kind: Kind() for kind in _KINDS[place.peer.name]}
            yield Road(made, url, caller, kinds)


def _measure(roads: list[Roads], arguments: argparse.Namespace) -> None:
    """Let each have its turn in every round, a variant and the other by the same way in a row."""
    chance = random.Random(arguments.seed)  # noqa: S311  # repeatable, not secret
    for pair in roads:
        for road in pair.values():
            road.caller.burst(new_keys(arguments.requests))  # whatever is slow only once
    for _ in tables.progress(range(arguments.rounds), "rounds"):
        for pair in chance.sample(roads, len(roads)):
            for name in chance.sample([*pair], len(pair)):
                pair[name].send(new_keys(arguments.requests))


def _show(roads: Mapping[tuple[str, float], Roads], arguments: argparse.Namespace) -> None:
    rows = []
    for (way, delay), pair in roads.items():
        bare = pair[BARE].kinds[FIRST]
        row = [f"{way}, {delay:g} ms", f"{pair[BARE].length():.2f}"]
        for kind in (bare, *pair[OURS].kinds.values()):
            row += [f"{kind.trips:.3g}", f"{1000 * kind.times.p50:.2f}"]
            if kind is not bare:
                row.append(str(ratio(kind.times, bare.times)))
        rows.append(row)
    rows.append(["goal", "", "", "", f"bare + {GOAL}", "", "", "1", "", ""])
    tables.show(
        f"Over a link, ms each way; {arguments.rounds} rounds of {arguments.requests} requests: "
        "round trips, p50, and ratios (and between which the middle half of the rounds lies)",
        ("", "a trip, ms", "bare", "ms", FIRST, "ms", "/ bare", REPLAY, "ms", "/ bare"),
        rows,
    )


if __name__ == "__main__":
    main()
