"""Print how much longer a request takes than the bare view, with this app and with its peers.

Every variant is the same view of Django REST framework, one insert, on the same PostgreSQL. All are
up at once and take turns, in an order that changes from round to round, so what the machine does
meanwhile meets them alike. Read the ratios: the milliseconds are this machine's.
"""

import argparse
import random
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import database, tables

from . import load, process, served
from .peers import BARE, OURS, PEERS
from .ratios import FIRST, REPLAY, Times, ratio
from .served import Place

Bursts = Mapping[str, Callable[[list[str]], list[float]]]
"""By the variant's name, what sends a request for each key and gives the seconds."""
Measured = Mapping[tuple[str, str], Times]
"""By the variant's name, and `FIRST` or `REPLAY`."""

GOALS = {"http": {FIRST: 1.15, REPLAY: 0.45}, "process": {FIRST: 1.30, REPLAY: 0.45}}
"""The most that this app is to take, as a ratio over the bare view's first request."""


def main() -> None:
    """Measure in turns, and print."""
    arguments = _arguments()
    with database.own_database(), TemporaryDirectory(prefix="speed-") as name:
        tables.begin(arguments)
        places = [
            Place(PEERS[variant], Path(sys.executable), Path(name))
            for variant in arguments.variants
        ]
        for place in places:
            place.create_tables()
        for way in arguments.ways:
            with _WAYS[way](places, arguments) as bursts:
                _show(way, _measure(bursts, arguments), arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=__doc__)
    number = tables.at_least(1)
    parser.add_argument(
        "--variants", nargs="+", choices=PEERS, default=[*PEERS], help="what to compare: all"
    )
    parser.add_argument("--ways", nargs="+", choices=_WAYS, default=[*_WAYS], help="in turn: all")
    parser.add_argument("--rounds", type=number, default=30, help="in which each has a turn: 30")
    parser.add_argument("--requests", type=number, default=100, help="of each kind in a turn: 100")
    parser.add_argument("--connections", type=number, default=2, help="open at a time: 2")
    parser.add_argument("--workers", type=number, default=1, help="of each server: 1")
    parser.add_argument("--threads", type=number, default=4, help="of each worker: 4")
    parser.add_argument("--seed", type=int, default=1, help="of the order: 1")
    arguments = parser.parse_args()
    if BARE not in arguments.variants:
        parser.error(f"Without {BARE} there is nothing to compare with.")
    return arguments


@contextmanager
def _http(places: list[Place], arguments: argparse.Namespace) -> Iterator[Bursts]:
    with ExitStack() as servers:
        bursts = {}
        for place in places:
            url = servers.enter_context(served.serve(place, arguments.workers, arguments.threads))
            bursts[place.peer.name] = partial(
                load.burst, url, connections=arguments.connections, folder=place.folder
            )
        yield bursts


@contextmanager
def _process(places: list[Place], _arguments: argparse.Namespace) -> Iterator[Bursts]:
    with ExitStack() as callers:
        yield {
            place.peer.name: callers.enter_context(process.calling(place)).burst for place in places
        }


_WAYS = {"http": _http, "process": _process}


def _measure(bursts: Bursts, arguments: argparse.Namespace) -> Measured:
    """Let each have its turn in every round: new keys, and then the same again."""
    measured: defaultdict[tuple[str, str], Times] = defaultdict(Times)
    chance = random.Random(arguments.seed)  # noqa: S311  # repeatable, not secret
    for burst in bursts.values():
        burst(_keys(arguments.requests))  # whatever is slow only once
    for _ in tables.progress(range(arguments.rounds), "rounds"):
        for name in chance.sample([*bursts], len(bursts)):
            keys = _keys(arguments.requests)
            measured[name, FIRST].rounds.append(bursts[name](keys))
            if name != BARE:
                measured[name, REPLAY].rounds.append(bursts[name](keys))
    return measured


def _keys(number: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(number)]


def _show(way: str, measured: Measured, arguments: argparse.Namespace) -> None:
    bare = measured[BARE, FIRST]
    rows = []
    for (name, kind), times in measured.items():
        compared = ratio(times, bare)
        goal = f"{GOALS[way][kind]:.2f}" if name == OURS else ""
        milliseconds = (f"{1000 * times.p50:.2f}", f"{1000 * times.p99:.2f}")
        rows.append((f"{name}, {kind}", compared, goal, f"{compared.p99:.2f}", *milliseconds))
    tables.show(
        f"{_TITLES[way]}: {arguments.rounds} rounds of {arguments.requests} requests",
        ("", "p50 / bare (middle half)", "goal", "p99 / bare", "p50 ms", "p99 ms"),
        sorted(rows),
    )


_TITLES = {"http": "Through HTTP", "process": "In process"}

if __name__ == "__main__":
    main()
