"""Let a crowd pay, and print what came of it: ``python -m benchmarks.crowd --help``."""

import argparse
import os
import sys

from benchmarks import database, tables, traffic
from testproject.shop.payments import SLOW_SECONDS

from . import gateway, load
from .gateway import Gateway
from .load import Outcome

_HOT_SECONDS = 6


def main() -> None:
    """Measure, print, and exit with 1 where a key has not one effect, or a client no answer."""
    arguments = _arguments()
    files = gateway.raise_limits()
    if files < 2 * arguments.connections:
        sys.exit(f"{arguments.connections} connections need twice as many open files, not {files}.")
    with database.own_database():
        traffic.open_accounts()
        tables.begin(arguments)
        with gateway.serve(arguments.workers, arguments.threads) as served:
            outcomes = [
                *_crowd(served, arguments),
                _burst(served, arguments),
                *_hot_key(served, arguments),
            ]
        is_once = _effects()
    failed = sum(it.by_status.get(code, 0) for it in outcomes for code in load.FAILURES)
    if failed:
        tables.console.print(f"{failed} requests were not answered, or with a 5xx.")
    sys.exit(bool(failed or not is_once))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.crowd", description=__doc__)
    cores = os.cpu_count() or 1
    number = tables.at_least(1)
    parser.add_argument("--connections", type=number, default=10_000, help="open: 10000")
    parser.add_argument("--seconds", type=number, default=30, help="of the steady load: 30")
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity: 0.7")
    parser.add_argument("--burst", type=number, default=10_000, help="requests: 10000")
    parser.add_argument("--keys", type=number, default=1_000, help="of the burst: 1000")
    parser.add_argument("--clients", type=number, default=1_000, help="of one key: 1000")
    parser.add_argument("--workers", type=number, default=cores, help=f"for payments: {cores}")
    parser.add_argument("--threads", type=number, default=8, help="of each worker: 8")
    return parser.parse_args()


def _crowd(served: Gateway, arguments: argparse.Namespace) -> list[Outcome]:
    load.greedy(served.url, 16, 3)  # whatever is slow only once
    seconds = max(5, arguments.seconds // 3)
    most = load.greedy(served.url, 32, seconds)
    capacity = most.requests / seconds
    rate = capacity * arguments.share
    with gateway.watched() as counts:
        steady = load.steady(served.url, arguments.connections, rate, arguments.seconds)
    tables.console.print(
        f"\nCapacity {capacity:,.0f} requests a second over 32 connections; then {rate:,.0f} a "
        f"second over {max(counts, default=0):,} open connections at most; not sent in time: "
        f"{steady.unsent}"
    )
    _times("Milliseconds from the moment a client meant to send to its last answer", steady)
    _statuses({"as fast as it goes": most, "steady": steady})
    return [most, steady]


def _burst(served: Gateway, arguments: argparse.Namespace) -> Outcome:
    outcome = load.burst(
        served.url, arguments.burst, arguments.keys, seconds=max(3, arguments.seconds // 3)
    )
    title = f"{arguments.burst:,} requests at once with {arguments.keys:,} keys; looks elsewhere"
    _times(f"{title} (ms)", outcome)
    _statuses({"burst and looks": outcome})
    return outcome


def _hot_key(served: Gateway, arguments: argparse.Namespace) -> list[Outcome]:
    clients = arguments.clients
    runs = {
        "a key each": lambda: load.alone(served.url, clients, _HOT_SECONDS),
        "one key, while the first runs": lambda: load.hot(
            served.url, clients, max(1, int(SLOW_SECONDS)), card="tok_slow"
        ),
        "one key, after it was answered": lambda: load.hot(served.url, clients, _HOT_SECONDS),
    }
    rows, outcomes = [], {}
    for name, run in runs.items():
        used, wal, dead = served.cpu_seconds(), _wal(), _dead_rows()
        outcome: Outcome = run()  # type: ignore[no-untyped-call]
        outcomes[name] = outcome
        spent = {who: value - used[who] for who, value in served.cpu_seconds().items()}
        per_request = [1e6 * spent.get(who, 0) / outcome.requests for who in _WHO]
        written = (_wal() - wal) / outcome.requests
        (times,) = outcome.milliseconds.values()
        rows.append(
            (name, outcome.requests, times["med"], *per_request, written, _dead_rows() - dead)
        )
    columns = ("clients", "requests", "p50 ms", "app µs", "nginx µs", "database µs")
    tables.show(
        f"{clients:,} clients; processor time and WAL of a request",
        (*columns, "WAL bytes", "dead rows"),
        rows,
    )
    _statuses(outcomes)
    return [*outcomes.values()]


_WHO = ("payments", "nginx", "PostgreSQL")


def _wal() -> int:
    return int(database.value("SELECT pg_current_wal_insert_lsn() - '0/0'"))


def _dead_rows() -> int:
    database.flush_statistics()
    sql = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'idempotency_key'"
    return int(database.value(sql))


def _times(title: str, outcome: Outcome) -> None:
    rows = [
        (name, times["med"], times["p(99)"], times["max"])
        for name, times in outcome.milliseconds.items()
    ]
    tables.show(title, ("", "p50", "p99", "max"), rows)


def _statuses(outcomes: dict[str, Outcome]) -> None:
    codes = sorted({code for outcome in outcomes.values() for code in outcome.by_status})
    tables.show(
        "Answers, by their status; 0 is none",
        ("", *codes),
        [(name, *(it.by_status.get(code, 0) for code in codes)) for name, it in outcomes.items()],
    )


def _effects() -> bool:
    """Compare the payments with the keys that were answered, and tell whether all is well."""
    keys, answers, payments = database.fetch(
        "SELECT count(*), count(DISTINCT convert_from(body, 'UTF8')::jsonb -> 'id'),"
        " (SELECT count(*) FROM shop_payment)"
        " FROM idempotency_key WHERE status = 'completed'"
    )[0]
    tables.console.print(
        f"\n{keys:,} keys were answered, with {answers:,} payments; there are {payments:,}."
    )
    return bool(keys == answers == payments)


if __name__ == "__main__":
    main()
