"""Good clients: each sends payments one after another, retries as it should, and writes it down."""

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from .ledger import Attempt, Ledger

PATIENCE = 30.0
"""Seconds after which a client gives up on a key: the longest that a key may be unusable."""

TIMEOUT = 2.0
"""Seconds a client waits for an answer."""

PAIRS = 3
"""Pairs of accounts. The two of a pair use the same keys for the same payments, each its own."""

TOKENS = [f"payer-{number}" for number in range(2 * PAIRS)]


@dataclass
class Clients:
    """All the clients of a shop."""

    url: str
    seed: int
    ledger: Ledger
    fault: str = ""
    """What is being injected now."""
    amounts: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """In cents, each given once."""
    _senders: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Let them pay while the block runs; in the end wait until all have been answered."""
        end = threading.Event()
        limits = httpx.Limits(max_keepalive_connections=0)  # a dead worker's are of no use
        with (
            httpx.Client(base_url=self.url, timeout=TIMEOUT, limits=limits) as http,
            ThreadPoolExecutor(8 * PAIRS) as pool,
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
            copies = [
                (self.fault, token, key, amount)
                for token in TOKENS[2 * pair : 2 * pair + 2]
                for _ in range(chance.choice((1, 1, 2)))  # a third is sent twice at once
            ]
            sending = [pool.submit(self._send, http, *copy) for copy in copies]
            for sent in sending:
                sent.result()
            if chance.random() < 0.3:
                self._send(http, *copies[0])  # after the answer: it is replayed

    def _send(self, http: httpx.Client, fault: str, account: str, key: str, amount: int) -> None:
        """Send until the answer is definite, or patience ends."""
        sender = next(self._senders)
        chance = random.Random(f"{self.seed}-{sender}")  # noqa: S311
        began = time.monotonic()
        pause = 0.05
        while True:
            sent, start = time.time(), time.monotonic()
            attempt, retry_after = Attempt(fault, account, key, amount, sender, sent, 0), 0.0
            try:
                answer = http.post(
                    "/payments/",
                    content=b'{"amount":"%d.%02d","currency":"EUR","card":"tok_visa"}'
                    % divmod(amount, 100),
                    headers={
                        "Authorization": f"Bearer {account}",
                        "Idempotency-Key": f'"{key}"',
                        "Content-Type": "application/json",
                    },
                )
                retry_after = float(answer.headers.get("Retry-After", 0))
                found = {
                    "status": answer.status_code,
                    "replayed": "Idempotent-Replayed" in answer.headers,
                    "digest": hashlib.sha256(answer.content).hexdigest(),
                }
            except httpx.TransportError as error:
                found = {"error": repr(error)}
            values = {name: getattr(attempt, name) for name in Attempt.__slots__} | found
            attempt = Attempt(**values | {"took": time.monotonic() - start})
            self.ledger.write(attempt)
            if is_definite(attempt.status) or time.monotonic() - began > PATIENCE:
                return
            time.sleep(max(pause * chance.uniform(0.5, 1.5), retry_after))
            pause = min(pause * 2, 1)


def is_definite(status: int | None) -> bool:
    """Tell whether an answer ends the retries: all but 409, 429, 5xx and none."""
    return status is not None and status < 500 and status not in {409, 429}
