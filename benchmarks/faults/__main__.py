"""Inject faults and print what came of it: ``python -m benchmarks.faults --help``."""

import argparse
import sys
from pathlib import Path

from benchmarks import tables

from . import records, rounds
from .matrix import FAULTS
from .sabotage import SABOTAGES
from .setting import ISOLATIONS
from .world import world


def main() -> None:
    """Run rounds, print the totals, and exit with 1 and the story where a promise is broken."""
    arguments = _arguments()
    found = records.read(arguments.resume) if arguments.resume else []
    missing = arguments.faults - sum(sum(record.injected.values()) for record in found)
    if missing > 0 and not any(record.breaches for record in found):
        _run(arguments, missing, found)
    records.show(found)
    if any(record.breaches for record in found):
        sys.exit(1)


def _run(arguments: argparse.Namespace, faults: int, found: list[records.Record]) -> None:
    names = arguments.only or [*FAULTS]
    settings = rounds.settings(names, isolations=arguments.isolation, is_pooled=arguments.pgbouncer)
    if not settings:
        sys.exit(f"Nothing of {', '.join(names)} can be injected in these settings.")
    with world() as made, made.shop(arguments.sabotage) as urls:
        for one in rounds.rounds(
            made,
            urls,
            names,
            seed=arguments.seed + len(found),
            faults=faults,
            seconds=arguments.seconds,
            settings=settings,
        ):
            found.append(one.record)
            if arguments.resume:
                records.append(arguments.resume, one.record)
            if one.breaches:
                break


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    number = tables.at_least(1)
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    parser.add_argument("--faults", type=number, default=100, help="in all, at most: 100")
    parser.add_argument("--seconds", type=number, default=600, help="at most: 600")
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="these faults: all")
    parser.add_argument(
        "--isolation", nargs="+", choices=ISOLATIONS, default=ISOLATIONS, help="in turn: all"
    )
    parser.add_argument(
        "--pgbouncer", action="store_true", help="in transaction mode between, in every other round"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="counts this file's rounds, and adds to it"
    )
    parser.add_argument(
        "--sabotage", choices=SABOTAGES, default="", help="break the promise on purpose"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
