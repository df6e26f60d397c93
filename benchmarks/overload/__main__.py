"""Print how long others' payments take while many copies of a slow one come again and again.

The slow payment is held by a lock on its account for as long as its window lasts. Its copies are
answered 409, and come again when ``Retry-After`` is over and up to half of that more, as good
clients' do. Windows with and without them alternate, in one run on one server.
"""

import argparse
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles

import httpx

from benchmarks import database, tables, traffic
from testproject.shop.demonstration.server import THREADS, serve

_BODY = {"amount": "0.01", "currency": "EUR", "card": "tok_visa"}
_PATIENCE = 60.0


@dataclass(slots=True)
class Window:
    """What was measured with copies coming, or without."""

    seconds: list[float] = field(default_factory=list)
    """How long others' payments took."""
    copies: Counter[int] = field(default_factory=Counter)
    """How the copies were answered."""

    def percentile(self, number: int) -> float:
        """Give how long at most that share of the payments took, in milliseconds."""
        return 1000 * quantiles(self.seconds, n=100, method="inclusive")[number - 1]


def main() -> None:
    """Measure in turns, and print."""
    arguments = _arguments()
    with database.own_database():
        tables.begin(arguments)
        traffic.open_accounts()
        measured = {0: Window(), arguments.copies: Window()}
        with (
            serve(0, workers=arguments.workers) as server,
            httpx.Client(
                base_url=server.url, timeout=_PATIENCE, limits=httpx.Limits(max_connections=None)
            ) as client,
        ):
            chance = random.Random(arguments.seed)  # noqa: S311  # repeatable, not secret
            _others(client, 1, arguments.rate, chance)  # whatever is slow only once
            for _ in range(arguments.rounds):
                for copies, window in measured.items():
                    with _held(client, copies, window):
                        window.seconds += _others(client, arguments.window, arguments.rate, chance)
        _show(measured, arguments.workers)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.overload", description=__doc__)
    at_least = tables.at_least
    parser.add_argument("--copies", type=at_least(1), default=60, help="at a time: 60")
    parser.add_argument("--workers", type=at_least(1), default=1, help="of the shop: 1")
    parser.add_argument("--rate", type=at_least(1), default=20, help="others a second: 20")
    parser.add_argument("--rounds", type=at_least(1), default=6, help="windows of each kind: 6")
    parser.add_argument("--window", type=at_least(1), default=5, help="its length in seconds: 5")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    return parser.parse_args()


def _pay(client: httpx.Client, account: int, key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer account-{account}", "Idempotency-Key": f'"{key}"'}
    return client.post("/payments/", json=_BODY, headers=headers)


def _others(client: httpx.Client, length: int, rate: int, chance: random.Random) -> list[float]:
    """Let payments of others be due at a steady rate, and tell how long each took from then on."""

    def pay(due: float) -> float:
        time.sleep(max(0, due - time.monotonic()))
        account = chance.randrange(1, traffic.ACCOUNTS)
        _pay(client, account, str(uuid.uuid4())).raise_for_status()
        return time.monotonic() - due

    begin = time.monotonic() + 0.1
    with ThreadPoolExecutor(rate) as pool:
        return list(pool.map(pay, [begin + number / rate for number in range(length * rate)]))


@contextmanager
def _held(client: httpx.Client, copies: int, window: Window) -> Iterator[None]:
    """Hold a payment of the first account in its view, and let copies of it come."""
    key, end = str(uuid.uuid4()), threading.Event()

    def insist() -> None:
        while not end.is_set():
            answer = _pay(client, 0, key)
            window.copies[answer.status_code] += not end.is_set()
            end.wait(float(answer.headers.get("Retry-After", 1)) * random.uniform(1, 1.5))  # noqa: S311

    with ThreadPoolExecutor(copies + 1) as pool:
        with traffic.first_account_held():
            first = pool.submit(_pay, client, 0, key)
            _wait_for_holder()
            for _ in range(copies):
                pool.submit(insist)
            yield
            end.set()
        first.result().raise_for_status()


def _wait_for_holder() -> None:
    deadline = time.monotonic() + _PATIENCE
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    while not database.value(waiting):
        if time.monotonic() > deadline:
            raise TimeoutError("The slow payment did not come to its view.")
        time.sleep(0.01)


def _show(measured: dict[int, Window], workers: int) -> None:
    without = measured[0]
    tables.show(
        f"Others' payments while one is held; {workers} x {THREADS} threads serve all",
        (
            *("copies", "others", "copies answered 409", "otherwise"),
            *("p50 ms", "p99 ms", "p50 ratio", "p99 ratio"),
        ),
        [
            (
                str(copies),
                len(window.seconds),
                window.copies[409],
                window.copies.total() - window.copies[409],
                window.percentile(50),
                window.percentile(99),
                window.percentile(50) / without.percentile(50),
                window.percentile(99) / without.percentile(99),
            )
            for copies, window in measured.items()
        ],
    )


if __name__ == "__main__":
    main()
