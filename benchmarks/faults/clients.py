"""Good clients: each sends payments one after another, retries as it should, and writes it down."""

import hashlib
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import httpx

from . import orders
from .ledger import DEFINITE, Attempt, Ledger
from .uploads import Cut

PATIENCE = 120.0
"""Seconds after which a client gives up on a key: the longest that a key may be unusable."""

TIMEOUT = 2.0
"""Seconds a client waits for an answer."""

PAIRS = 20
"""Pairs of accounts. The two of a pair use the same keys for the same payments, each its own."""

TOKENS = [f"payer-{number}" for number in range(2 * PAIRS)]

DOORS = {
    "view": ("/payments/", "Bearer"),
    "drf": ("/api/payments/", "Token"),
    "async": ("/async/payments/", "Bearer"),
}
"""Ways to send a payment: the path, and how the account's token is sent. Any server may get the
next retry."""


@dataclass
class Clients:
    """All the clients of a shop."""

    urls: dict[str, str]
    """By the kind of server."""
    seed: int
    ledger: Ledger
    amounts: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """In cents, each given once."""
    again: float = 0.3
    """Share of the payments that are sent once more when they have been answered."""
    _cuts: deque[Cut] = field(default_factory=deque)
    _senders: Iterator[int] = field(default_factory=itertools.count)

    def arm(self, cut: Cut) -> None:
        """Cut off a request that is sent from now on."""
        self._cuts.append(cut)

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Have them pay while the block runs; in the end wait until all have been answered."""
        end = threading.Event()
        limits = httpx.Limits(max_keepalive_connections=0)  # a dead worker's are of no use
        with (
            httpx.Client(timeout=TIMEOUT, limits=limits) as http,
            ThreadPoolExecutor(5 * PAIRS) as pool,
        ):
            pairs = [pool.submit(self._pay, n, http, pool, end) for n in range(PAIRS)]
            try:
                yield
            finally:
                end.set()
                for pair in pairs:
                    pair.result()

    def _pay(
        self, pair: int, http: httpx.Client, pool: ThreadPoolExecutor, end: threading.Event
    ) -> None:
        chance = random.Random(f"{self.seed}-{pair}")  # noqa: S311  # repeatable, not secret
        while not end.is_set():
            amount = next(self.amounts)
            key = f"payment-{self.seed}-{amount}"
            door = chance.choice([*DOORS])
            copies = [
                (token, key, door, amount)
                for token in TOKENS[2 * pair : 2 * pair + 2]
                for _ in range(chance.choice((1, 1, 2)))  # a third is sent twice at once
            ]
            sending = [pool.submit(self._send, http, *copy) for copy in copies]
            for sent in sending:
                sent.result()
            if chance.random() < self.again:
                self._send(http, *copies[0])  # after the answer: it is replayed

    def _send(self, http: httpx.Client, *payment: *tuple[str, str, str, int]) -> None:
        """Send until the answer is definite, or patience ends."""
        sender = next(self._senders)
        chance = random.Random(f"{self.seed}-{sender}")  # noqa: S311
        began = time.monotonic()
        pause = 0.05
        while True:
            attempt = self._attempt(http, Attempt(*payment, sender, time.time(), 0), chance)
            self.ledger.write(attempt)
            if attempt.is_definite or time.monotonic() - began > PATIENCE:
                return
            time.sleep(max(pause * chance.uniform(0.5, 1.5), attempt.retry_after))
            pause = min(pause * 2, 1)

    def _attempt(self, http: httpx.Client, attempt: Attempt, chance: random.Random) -> Attempt:
        path, scheme = DOORS[attempt.door]
        request = http.build_request(
            "POST",
            chance.choice([*self.urls.values()]) + path,
            headers={
                "Authorization": f"{scheme} {attempt.account}",
                "Idempotency-Key": f'"{attempt.key}"',
            },
            **orders.arguments(attempt.key, attempt.amount),
        )
        cut = self._take_cut(attempt)
        start = time.monotonic()
        try:
            answer = cut.send(request) if cut else http.send(request)
        except httpx.TransportError as error:
            attempt = replace(attempt, error=repr(error))
        else:
            attempt = _answered(attempt, answer)
        return replace(attempt, took=time.monotonic() - start, part=cut.part if cut else "")

    def _take_cut(self, attempt: Attempt) -> Cut | None:
        try:
            cut = self._cuts.popleft()
        except IndexError:
            return None
        cut.take(attempt)
        return cut


def _answered(attempt: Attempt, answer: httpx.Response) -> Attempt:
    return replace(
        attempt,
        status=answer.status_code,
        problem=_problem(answer),
        retry_after=int(answer.headers.get("Retry-After", 0)),
        replayed="Idempotent-Replayed" in answer.headers,
        digest=hashlib.sha256(answer.content).hexdigest(),
        paid=answer.json()["id"] if answer.status_code == DEFINITE else 0,
    )


def _problem(answer: httpx.Response) -> str:
    if answer.headers.get("Content-Type") != "application/problem+json":
        return ""
    return urlsplit(str(answer.json()["type"])).fragment
