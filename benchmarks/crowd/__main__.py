"""Let a crowd pay, and print what came of it: ``python -m benchmarks.crowd --help``."""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex
from statistics import median

from django.db import connection

from benchmarks import database, tables, traffic

from . import gateway, load, usage
from .gateway import Gateway
from .load import Outcome
from .usage import Usage

_HOT_SECONDS = 5
_HOT_ROUNDS = 3
_BARE = "no keys: the bare view"
_WHO = ("payments", "rest", "nginx", "PostgreSQL", "k9")


def main() -> None:
    """Measure, print, and exit with 1 where a key has not one effect, or a client no answer."""
    arguments = _arguments()
    files = gateway.raise_limits()
    if files < 2 * arguments.connections:
        sys.exit(f"{arguments.connections} connections need twice as many open files, not {files}.")
    with database.own_database():
        traffic.open_accounts()
        tables.begin(arguments)
        with gateway.serve(arguments.threads) as served:
            parts = {"steady": _crowd, "burst": _burst, "hot": _hot_key}
            outcomes = [it for name in arguments.parts for it in parts[name](served, arguments)]
        is_once = _effects()
    failed = sum(it.by_status.get(code, 0) for it in outcomes for code in load.FAILURES)
    if failed:
        tables.console.print(f"{failed} requests were not answered, or with a 5xx.")
    sys.exit(bool(failed or not is_once))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.crowd", description=__doc__)
    number = tables.at_least(1)
    names = ["steady", "burst", "hot"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="all three")
    parser.add_argument("--connections", type=number, default=10_000, help="open: 10000")
    parser.add_argument(
        "--payers", type=number, default=1_000, help="connections that pay, besides: 1000"
    )
    parser.add_argument("--seconds", type=number, default=30, help="of the steady load: 30")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.7], help="of the capacity: 0.7"
    )
    parser.add_argument("--burst", type=number, default=10_000, help="requests: 10000")
    parser.add_argument("--keys", type=number, default=1_000, help="of the burst: 1000")
    parser.add_argument("--clients", type=number, default=1_000, help="of one key: 1000")
    parser.add_argument("--threads", type=number, default=8, help="of each worker: 8")
    return parser.parse_args()


def _crowd(served: Gateway, arguments: argparse.Namespace) -> list[Outcome]:
    load.greedy(served.url, 32, 3)  # whatever is slow only once
    runs = {}
    with usage.measured(served) as used:
        most = load.greedy(served.url, 32, max(5, arguments.seconds // 2))
    runs["as fast as it goes"] = used, most
    tables.console.print(f"\nCapacity: {most.a_second:,.0f} requests a second, of 32 connections")
    times = []
    for share in arguments.shares:
        rate = most.a_second * share
        sizes = (arguments.connections, arguments.payers)
        with usage.measured(served) as used:
            steady = load.steady(served.url, *sizes, rate, arguments.seconds)
        runs[f"{share:.0%}"] = used, steady
        times += [
            (f"{share:.0%} of it, {name}", rate, used.most_connections, *each, steady.unsent)
            for name, each in _times(steady)
        ]
    columns = ("", "requests a second", "connections", "p50", "p99", "max", "not sent in time")
    tables.show("Milliseconds from when a client meant to send to its last answer", columns, times)
    _costs("Processor time and WAL of a request of the mix", runs)
    outcomes = {name: outcome for name, (_used, outcome) in runs.items()}
    _statuses(outcomes)
    return [*outcomes.values()]


def _burst(served: Gateway, arguments: argparse.Namespace) -> list[Outcome]:
    name = f"burst-{token_hex(4)}"
    seconds = max(3, arguments.seconds // 3)
    outcome = load.burst(served.url, arguments.burst, arguments.keys, seconds, name)
    title = f"{arguments.burst:,} requests at once with {arguments.keys:,} keys; looks elsewhere"
    columns = ("milliseconds", "p50", "p99", "max")
    tables.show(title, columns, [(who, *each) for who, each in _times(outcome)])
    _statuses({"burst and looks": outcome})
    answered = database.value(
        "SELECT count(*) FROM idempotency_key WHERE status = 'completed' AND starts_with(key, %s)",
        [name],
    )
    tables.console.print(f"\n{answered:,} keys of the burst were answered.")
    return [outcome]


def _hot_key(served: Gateway, arguments: argparse.Namespace) -> list[Outcome]:
    rounds = [_hot_round(served, arguments.clients) for _ in range(_HOT_ROUNDS)]
    runs = {
        name: (
            usage.total([one[name][0] for one in rounds]),
            load.total([one[name][1] for one in rounds]),
        )
        for name in rounds[0]
    }
    bare = [one[_BARE][1].a_second for one in rounds]
    rows = []
    for name in runs:
        speeds = [one[name][1].a_second for one in rounds]
        ratios = [speed / base for speed, base in zip(speeds, bare, strict=True)]
        rows.append((name, median(speeds), median(ratios), min(ratios), max(ratios)))
    tables.show(
        f"{arguments.clients:,} clients, as fast as they can; medians of {_HOT_ROUNDS} rounds",
        ("", "requests a second", "to the bare view", "least", "most"),
        rows,
    )
    _costs("Processor time and WAL of a request", runs)
    outcomes = {name: outcome for name, (_used, outcome) in runs.items()}
    _statuses(outcomes)
    return [*outcomes.values()]


def _hot_round(served: Gateway, clients: int) -> dict[str, tuple[Usage, Outcome]]:
    """Measure a view without keys, keys of their own, and one key before and after its answer."""
    key = token_hex(4)
    with usage.measured(served) as no_keys:
        bare = load.bare(served.url, clients, _HOT_SECONDS)
    with usage.measured(served) as each:
        alone = load.alone(served.url, clients, _HOT_SECONDS)
    with usage.measured(served) as before, _held(_HOT_SECONDS):
        running = load.hot(served.url, clients, _HOT_SECONDS, key)
    version = _version(key)
    with usage.measured(served) as after:
        answered = load.hot(served.url, clients, _HOT_SECONDS, key)
    told = "the same as before" if _version(key) == version else "another"
    tables.console.print(f"The key's row after all the replays: {told}, by ctid, xmin and xmax.")
    return {
        _BARE: (no_keys, bare),
        "a key each": (each, alone),
        "one key, while the first runs": (before, running),
        "one key, after it was answered": (after, answered),
    }


@contextmanager
def _held(seconds: float) -> Iterator[None]:
    """Hold the first account for a time, from a thread, and wait in the end until that is over."""
    is_held = threading.Event()

    def hold() -> None:
        with traffic.first_account_held():
            is_held.set()
            time.sleep(seconds)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    try:
        yield
    finally:
        holder.join()


def _version(key: str) -> tuple[object, ...]:
    """Tell what any update, delete or lock of the key's row would change."""
    sql = "SELECT ctid::text, xmin::text, xmax::text FROM idempotency_key WHERE key = %s"
    return database.fetch(sql, [key])[0]


def _times(outcome: Outcome) -> list[tuple[str, tuple[float, float, float]]]:
    return [
        (name, (times["med"], times["p(99)"], times["max"]))
        for name, times in outcome.milliseconds.items()
    ]


def _costs(title: str, runs: dict[str, tuple[Usage, Outcome]]) -> None:
    """Show what a request has used of each server, without the clients that only rest."""
    rows = []
    for name, (used, outcome) in runs.items():
        requests = outcome.requests - outcome.by_status.get("204", 0)
        times = [1e6 * used.cpu_seconds.get(who, 0) / requests for who in _WHO]
        rows.append((name, requests, *times, used.wal_bytes / requests))
    columns = ("requests", *(f"{who} µs" for who in _WHO), "WAL bytes")
    tables.show(title, ("", *columns), rows)


def _statuses(outcomes: dict[str, Outcome]) -> None:
    codes = sorted({code for outcome in outcomes.values() for code in outcome.by_status})
    tables.show(
        "Answers, by their status; 0 is none",
        ("", *codes),
        [(name, *(it.by_status.get(code, 0) for code in codes)) for name, it in outcomes.items()],
    )


def _effects() -> bool:
    """Compare the payments with the keys that were answered, and tell whether all is well."""
    rows, keys, answers, payments = database.fetch(
        "SELECT count(*), count(*) FILTER (WHERE status = 'completed'),"
        " count(DISTINCT convert_from(body, 'UTF8')::jsonb -> 'id'),"
        " (SELECT count(*) FROM shop_payment WHERE currency <> %s)"
        " FROM idempotency_key",
        [load.BARE_CURRENCY],
    )[0]
    tables.console.print(
        f"\nOf {rows:,} keys {keys:,} were answered, with {answers:,} payments; "
        f"there are {payments:,}."
    )
    return bool(rows == keys == answers == payments)


if __name__ == "__main__":
    main()
