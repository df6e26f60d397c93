"""What each variant does with a retry, with another's key, and with a copy at the same time.

Nothing is known beforehand: requests are sent, and the payments in the database are counted.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from .served import Place

WORKERS: Final = 2
"""Of each server: one answers while another is made anew."""

PATIENCE: Final = 60.0
"""Seconds after which a client gives up on a key."""

POINTS: Final = ("insert", "commit", "answer")
"""Where a worker is killed: in the view after its insert, when its transaction has been committed,
and when the answer is complete and has not been sent."""

_AT_ONCE = 25.0
"""Seconds that a copy may wait for the first request."""
_SOON = 2.0
"""Seconds after a kill for which nobody else kills, so that a fast answer has the machine."""

_AGAIN = {409, 423, 425, 429, 500, 502, 503, 504}
"""Statuses of an answer that is none yet."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a request with a key that was used before is answered."""

    status: int
    is_same: bool
    """Whether it has the first one's status and body, byte for byte."""
    effects: int
    """Payments with the key's reference, after it."""
    seconds: float
    """Until it was answered."""

    @property
    def is_answered(self) -> bool:
        """Tell whether a client would stop there."""
        return self.status not in _AGAIN


@dataclass
class Client:
    """Sends payments to one variant."""

    place: Place
    http: httpx.Client
    quiet: threading.Lock

    def pay(self, key: str, user: int | None = 1, stop_at: str = "") -> httpx.Response:
        """Send a payment."""
        identity = {} if user is None else {"Authorization": f"Bearer {user}"}
        payment = {"reference": key, "amount": "12.50", "currency": "EUR", "card": "tok_visa"}
        headers = {"Idempotency-Key": key, "Stop-At": stop_at} | identity
        return self.http.post("/payments/", json=payment, headers=headers)

    def retry(self, user: int | None = 1) -> Retry:
        """Pay, and then pay again with the same key, as the same user or another one."""
        key = str(uuid.uuid4())
        first = self.pay(key)
        first.raise_for_status()
        begin = time.monotonic()
        return self._retry(self.pay(key, user), key, begin, first)

    def copy(self) -> Retry:
        """Send a payment while one with the same key is in its view."""
        key = str(uuid.uuid4())
        with self._stopped(key, "insert") as (first, _worker):
            begin = time.monotonic()
            try:
                copy = self.pay(key)
            except httpx.TimeoutException:
                copy = httpx.Response(0)
            seconds = time.monotonic() - begin
            self.place.stop.unlink()
            first.result().raise_for_status()
        return Retry(copy.status_code, False, self.place.payments(key), seconds)  # noqa: FBT003

    def killed(self, point: str) -> Retry:
        """Kill the worker of a payment at a point, and send it again until it is answered."""
        key = str(uuid.uuid4())
        with self.quiet:
            self._wait_for_workers()
            with self._stopped(key, point) as (first, worker):
                self.place.kill(worker)
                begin = time.monotonic()
                if first.exception() is None:
                    raise AssertionError(f"{self.place.peer.name} answered without its worker.")
            retry = self._insist(key, begin, _SOON, pause=0.02)
            self._wait_for_workers()
        return retry if retry.is_answered else self._insist(key, begin, PATIENCE, pause=0.2)

    def _insist(self, key: str, begin: float, patience: float, pause: float) -> Retry:
        while True:
            answer = self._try(key)
            if answer.status_code not in _AGAIN or time.monotonic() - begin > patience:
                return self._retry(answer, key, begin)
            time.sleep(pause)

    def _try(self, key: str) -> httpx.Response:
        try:
            return self.pay(key)
        except httpx.TransportError:
            return httpx.Response(503)

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + _AT_ONCE
        while len(self.place.workers()) < WORKERS:
            if time.monotonic() > deadline:
                raise AssertionError(f"There are no workers. {self.place.complaint()}")
            time.sleep(0.01)

    @contextmanager
    def _stopped(self, key: str, point: str) -> Iterator[tuple["Future[httpx.Response]", int]]:
        """Let a payment stop at a point; give it, and the process id of its worker."""
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(self.pay, key, stop_at=point)
            deadline = time.monotonic() + 10
            while not self.place.stop.exists():
                if first.done() or time.monotonic() > deadline:
                    raise AssertionError(f"{self.place.peer.name} did not come to {point}.")
                time.sleep(0.005)
            try:
                yield first, int(self.place.stop.read_text())
            finally:
                self.place.stop.unlink(missing_ok=True)

    def _retry(
        self, answer: httpx.Response, key: str, begin: float, first: httpx.Response | None = None
    ) -> Retry:
        seconds = time.monotonic() - begin
        told = (answer.status_code, answer.content)
        is_same = first is not None and told == (first.status_code, first.content)
        return Retry(answer.status_code, is_same, self.place.payments(key), seconds)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was seen of one variant."""

    retry: Retry
    foreign: Retry
    """With the same key and body, by another user."""
    anonymous: Retry
    """The same, by nobody."""
    copy: Retry
    killed: dict[str, Retry]
    """By the point."""


def find(place: Place, url: str, quiet: threading.Lock) -> Facts:
    """See what a variant does.

    Args:
        quiet: What all that run at the same time share.
    """
    limits = httpx.Limits(max_keepalive_connections=0)  # a dead worker's are of no use
    with httpx.Client(base_url=url, timeout=_AT_ONCE, limits=limits) as http:
        client = Client(place, http, quiet)
        return Facts(
            retry=client.retry(),
            foreign=client.retry(user=2),
            anonymous=client.retry(user=None),
            copy=client.copy(),
            killed={point: client.killed(point) for point in POINTS},
        )
