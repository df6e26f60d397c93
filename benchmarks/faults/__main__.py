"""Inject faults and print what came of it: ``python -m benchmarks.faults --help``."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from benchmarks import tables

from . import rounds
from .matrix import FAULTS
from .rounds import Tally
from .sabotage import SABOTAGES
from .world import world

COLUMNS = ("loss", "duplicate", "difference")
"""Broken promises that have a column of their own; see `checker.KINDS`."""


def main() -> None:
    """Run rounds, print the totals, and exit with 1 and the story where a promise is broken."""
    arguments = _arguments()
    before = rounds.read(arguments.resume) if arguments.resume else []
    totals: defaultdict[str, Tally] = defaultdict(Tally)
    breaches = []
    with world() as made, made.shop(arguments.sabotage) as url:
        _add(totals, before)
        for one in rounds.rounds(
            made,
            url,
            arguments.only or [*FAULTS],
            seed=arguments.seed + len(before),
            faults=arguments.faults,
            seconds=arguments.seconds,
        ):
            if arguments.resume:
                rounds.append(arguments.resume, one)
            _add(totals, [one.tallies])
            breaches += one.breaches
            if breaches:
                break
    _show(totals)
    for breach in breaches[:5]:
        tables.console.print(f"\n{breach}")
    if breaches or any(tally.breaches for tally in totals.values()):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    parser.add_argument("--faults", type=tables.at_least(1), default=100, help="at most: 100")
    parser.add_argument("--seconds", type=tables.at_least(1), default=600, help="at most: 600")
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="these faults: all")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="adds rounds to this file")
    parser.add_argument(
        "--sabotage", choices=SABOTAGES, default="", help="break the promise on purpose"
    )
    return parser.parse_args()


def _add(totals: dict[str, Tally], tallies: Iterable[dict[str, Tally]]) -> None:
    for one in tallies:
        for name, tally in one.items():
            totals[name].add(tally)


def _show(totals: dict[str, Tally]) -> None:
    whole = Tally()
    for tally in totals.values():
        whole.add(tally)
    tables.show(
        "Faults, promises broken by them, and the time until the key that was hit was free again",
        ("fault", "injected", "requests", "acknowledged", *COLUMNS, "other", "p50 ms", "max ms"),
        [
            (
                name,
                tally.injected,
                tally.requests,
                tally.acknowledged,
                *(tally.breaches[kind] for kind in COLUMNS),
                tally.breaches.total() - sum(tally.breaches[kind] for kind in COLUMNS),
                1000 * median(tally.seconds) if tally.seconds else "-",
                1000 * max(tally.seconds) if tally.seconds else "-",
            )
            for name, tally in [*sorted(totals.items()), ("in all", whole)]
        ],
    )


if __name__ == "__main__":
    main()
