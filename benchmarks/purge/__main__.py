"""Print how fast the purge is, and what it costs others: ``python -m benchmarks.purge --help``."""

import argparse
import time

from benchmarks import database, rows, tables, traffic
from benchmarks.designs import Sizes, sizes
from idempotency.purges import BATCH_SIZE, PAUSE

from . import creation, windows
from .windows import Measured, Purge

GOAL_SPEED = 20
GOAL_P99 = 1.1


def main() -> None:
    """Fill, measure the shop, purge in turns, purge the rest alone, and print."""
    arguments = _arguments()
    with database.own_database():
        tables.begin(arguments)
        traffic.open_accounts()
        now = database.value("SELECT now()")
        rows.Rows(count=arguments.rows, seed=arguments.seed, now=now).fill()
        before = sizes()
        created = creation.keys_a_second(arguments.http_seconds)
        plan = windows.Windows(
            rounds=arguments.rounds,
            seconds=arguments.window,
            rows=arguments.rows // 5 * 4 // 5,  # a fifth has expired: leave a fifth of these
            seed=arguments.seed,
        )
        database.execute("CHECKPOINT")
        with traffic.crowd(
            arguments.processes, arguments.rate, schema="public", seed=arguments.seed
        ) as crowd:
            measured = plan.measure(crowd, arguments.purges)
        alone = _purge_rest(arguments.purges[0])
        after = sizes()
        began = time.monotonic()
        database.execute("VACUUM idempotency_key")
        vacuum = time.monotonic() - began
        _show_live(measured)
        _show_speed(measured, arguments.purges, alone, created)
        _show_sizes(before, after, sizes(), vacuum)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.purge", description=__doc__)
    at_least = tables.at_least
    parser.add_argument("--rows", type=at_least(1000), default=200_000, help="200000")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    parser.add_argument("--rate", type=at_least(1), default=80, help="live requests a second: 80")
    parser.add_argument("--processes", type=at_least(1), default=2, help="that send them: 2")
    parser.add_argument("--rounds", type=at_least(1), default=4, help="windows of each kind: 4")
    parser.add_argument("--window", type=at_least(1), default=1, help="its length in seconds: 1")
    parser.add_argument("--http-seconds", type=at_least(1), default=5, help="of paying: 5")
    parser.add_argument(
        "--purges",
        type=Purge.parse,
        nargs="+",
        default=[Purge(BATCH_SIZE, PAUSE)],
        metavar="N:MS",
        help="batch sizes and milliseconds between batches; by default the app's own",
    )
    return parser.parse_args()


def _purge_rest(purge: Purge) -> tuple[int, float]:
    began = time.monotonic()
    return purge.run(), time.monotonic() - began


def _show_live(measured: dict[Purge | None, Measured]) -> None:
    without = measured[None]
    named = {"none": without, "none, every other window": without.half()}
    named |= {str(purge): found for purge, found in measured.items() if purge}
    tables.show(
        f"Live requests, from claim to commit: the p99 should rise to {GOAL_P99} at most",
        ("purge", "requests", "p50 ms", "p99 ms", "p50 ratio", "p99 ratio"),
        [
            (
                name,
                len(found.seconds),
                found.percentile(50),
                found.percentile(99),
                found.percentile(50) / without.percentile(50),
                found.percentile(99) / without.percentile(99),
            )
            for name, found in named.items()
        ],
    )


def _show_speed(
    measured: dict[Purge | None, Measured],
    purges: list[Purge],
    alone: tuple[int, float],
    created: float,
) -> None:
    speeds = {str(purge): (measured[purge].rows, measured[purge].busy) for purge in purges}
    speeds[f"{purges[0]}, no live requests"] = alone
    tables.show(
        f"Speed: at least {GOAL_SPEED} times that of the shop, which created {created:,.0f} keys/s",
        ("purge", "rows", "rows a second", "times the shop"),
        [
            (name, number, number / seconds, number / seconds / created)
            for name, (number, seconds) in speeds.items()
        ],
    )


def _show_sizes(before: Sizes, after: Sizes, vacuumed: Sizes, seconds: float) -> None:
    parts = {"heap": [s.heap for s in (before, after, vacuumed)]}
    parts |= {name: [s.indexes[name] for s in (before, after, vacuumed)] for name in before.indexes}
    tables.show(
        f"Size in bytes; VACUUM took {seconds:.1f} s, and lets new keys use what is free",
        ("part", "before", "after the purge", "after VACUUM"),
        [(name, *values) for name, values in parts.items()],
    )


if __name__ == "__main__":
    main()
