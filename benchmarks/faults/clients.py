"""Good clients: each sends payments one after another, retries as it should, and writes it down."""

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import httpx

from .ledger import DEFINITE, Attempt, Ledger

PATIENCE = 120.0
"""Seconds after which a client gives up on a key: the longest that a key may be unusable."""

TIMEOUT = 2.0
"""Seconds a client waits for an answer."""

PAIRS = 20
"""Pairs of accounts. The two of a pair use the same keys for the same payments, each its own."""

TOKENS = [f"payer-{number}" for number in range(2 * PAIRS)]

DOORS = {
    "view": ("/payments/", "Bearer", ("threads", "single")),
    "drf": ("/api/payments/", "Token", ("threads",)),
    "async": ("/async/payments/", "Bearer", ("asyncio",)),
}
"""Ways to send a payment: the path, how the account's token is sent, and the kinds of servers, any
of which may get the next retry."""


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
    _senders: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Let them pay while the block runs; in the end wait until all have been answered."""
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
        doors = [name for name, (*_, kinds) in DOORS.items() if self.urls.keys() & {*kinds}]
        while not end.is_set():
            amount = next(self.amounts)
            key = f"payment-{self.seed}-{amount}"
            door = chance.choice(doors)
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
            if is_definite(attempt.status) or time.monotonic() - began > PATIENCE:
                return
            time.sleep(max(pause * chance.uniform(0.5, 1.5), attempt.retry_after))
            pause = min(pause * 2, 1)

    def _attempt(self, http: httpx.Client, attempt: Attempt, chance: random.Random) -> Attempt:
        path, scheme, kinds = DOORS[attempt.door]
        url = self.urls[chance.choice([kind for kind in kinds if kind in self.urls])]
        start = time.monotonic()
        try:
            answer = http.post(
                url + path,
                content=b'{"amount":"%d.%02d","currency":"EUR","card":"tok_visa"}'
                % divmod(attempt.amount, 100),
                headers={
                    "Authorization": f"{scheme} {attempt.account}",
                    "Idempotency-Key": f'"{attempt.key}"',
                    "Content-Type": "application/json",
                },
            )
        except httpx.TransportError as error:
            return replace(attempt, took=time.monotonic() - start, error=repr(error))
        return replace(
            attempt,
            took=time.monotonic() - start,
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


def is_definite(status: int | None) -> bool:
    """Tell whether an answer ends the retries: all but 409, 429, 5xx and none."""
    return status is not None and status < 500 and status not in {409, 429}
