"""The scenes: each puts one promise of the library to the test.

A scene is a function that sends requests and yields a step for each. What is printed is what is
judged: a step is right when its answer and its effect read as they were expected to.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Barrier
from typing import Final

import httpx
from django.utils import timezone

from testproject.shop.seed import ALICE, BOB

from .server import Server
from .storefront import NOTHING, Books, Purchase, Storefront, read

REPLAYED: Final = "201 replayed, same bytes"
IN_PROGRESS: Final = "409, Retry-After: 1"


@dataclass(frozen=True, slots=True)
class Step:
    """What was sent, what came back, and what that did to the customer's account."""

    sent: str
    answer: str
    effect: str
    expected: tuple[str, str]
    """The right answer and the right effect."""

    @property
    def is_right(self) -> bool:
        """Whether it went as promised."""
        return (self.answer, self.effect) == self.expected


@dataclass(frozen=True, slots=True)
class Scene:
    """A promise, and how it was kept."""

    promise: str
    steps: tuple[Step, ...]
    failure: str = ""
    """What ended the scene early, if anything did."""

    @property
    def is_right(self) -> bool:
        """Whether the promise was kept."""
        return not self.failure and all(step.is_right for step in self.steps)


def retry(shop: Storefront) -> Iterator[Step]:
    """Pay, and pay again as if the answer had been lost."""
    purchase = Purchase("10.00")
    first = shop.pay(purchase)
    yield Step(str(purchase), read(first), shop.effect(), ("201", "1 payment, -10.00"))
    again = shop.pay(purchase)
    yield Step(str(purchase), read(again, first), shop.effect(), (REPLAYED, NOTHING))


def duplicates(shop: Storefront) -> Iterator[Step]:
    """Send twenty copies of a request at the same moment."""
    purchase, start = Purchase("20.00"), Barrier(20)

    def pay(_: int) -> httpx.Response:
        start.wait()
        return shop.pay(purchase)

    with ThreadPoolExecutor(start.parties) as pool:
        responses = list(pool.map(pay, range(start.parties)))
    first = next((response for response in responses if read(response) == "201"), None)
    counts = Counter(read(response, first) for response in responses)
    answer = "\n".join(f"{count} x {words}" for words, count in sorted(counts.items()))
    is_right = counts["201"] == 1 and counts.keys() <= {"201", REPLAYED, IN_PROGRESS}
    expected = answer if is_right else f"1 x 201, else {REPLAYED} or {IN_PROGRESS}"
    sent = f"{start.parties} x {purchase}"
    yield Step(sent, answer, shop.effect(), (expected, "1 payment, -20.00"))


def changed(shop: Storefront) -> Iterator[Step]:
    """Send another amount with a key that has been used."""
    purchase = Purchase("10.00")
    first = shop.pay(purchase)
    yield Step(str(purchase), read(first), shop.effect(), ("201", "1 payment, -10.00"))
    other = replace(purchase, amount="11.00")
    yield Step(str(other), read(shop.pay(other)), shop.effect(), ("422", NOTHING))


def changed_early(shop: Storefront) -> Iterator[Step]:
    """Send another amount with a key whose first request is still running."""
    purchase = Purchase("30.00", card="tok_slow")
    other = replace(purchase, amount="31.00")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(shop.pay, purchase)
        shop.server.worker_in_payment()
        early = Step(str(other), read(shop.pay(other)), shop.effect(), ("422", NOTHING))
    answer = read(first.result())
    yield Step(str(purchase), answer, shop.effect(), ("201", "1 payment, -30.00"))
    yield early


def stranger(shop: Storefront) -> Iterator[Step]:
    """Let Bob send what Alice sent, key and all."""
    purchase = Purchase("10.00")
    first = shop.pay(purchase)
    yield Step(str(purchase), read(first), shop.effect(), ("201", "1 payment, -10.00"))
    same = replace(purchase, customer=BOB)
    bobs = shop.pay(same)
    is_his = bobs.json()["id"] != first.json()["id"] and bobs.content != first.content
    answer = f"{read(bobs, first)}, {'his own' if is_his else 'NOT his own'} payment"
    expected = "201, his own payment", "1 payment, -10.00"
    yield Step(str(same), answer, shop.effect(BOB), expected)


def refusal(shop: Storefront) -> Iterator[Step]:
    """Pay with a card that is declined after the view has written its payment."""
    purchase = Purchase("10.00", card="tok_declined")
    first = shop.pay(purchase)
    yield Step(str(purchase), read(first), shop.effect(), ("402", NOTHING))
    again = shop.pay(purchase)
    expected = "402 replayed, same bytes", NOTHING
    yield Step(str(purchase), read(again, first), shop.effect(), expected)


def killed_worker(shop: Storefront) -> Iterator[Step]:
    """Kill a worker that has written its payment and not committed it; send the same again."""
    purchase = Purchase("40.00", card="tok_slow")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(shop.pay, purchase)
        worker = shop.server.worker_in_payment()
        killed_at = timezone.now()
        os.kill(worker, signal.SIGKILL)
        is_lost = isinstance(first.exception(), httpx.TransportError)
    answer = "connection lost" if is_lost else read(first.result())
    yield Step(str(purchase), answer, shop.effect(), ("connection lost", NOTHING))
    deadline = time.monotonic() + 5
    while (again := shop.pay(purchase)).status_code == 409 and time.monotonic() < deadline:
        time.sleep(0.01)  # PostgreSQL has yet to notice
    delay = datetime.fromisoformat(again.json()["created_at"]) - killed_at
    accepted = f"accepted {delay.total_seconds() * 1000:.0f} ms after kill"
    answer, expected = f"{read(again)}, {accepted}", f"201, {accepted}"
    yield Step(str(purchase), answer, shop.effect(), (expected, "1 payment, -40.00"))


SCENES: Final[dict[str, Callable[[Storefront], Iterator[Step]]]] = {
    "A retry is told what the first request was told": retry,
    "Twenty copies at the same moment make one payment": duplicates,
    "A key stands for one request: another amount is refused": changed,
    "... even while the first request is still running": changed_early,
    "A key belongs to its customer: Bob may send Alice's": stranger,
    "A refusal leaves nothing behind, and is replayed too": refusal,
    "A worker killed in mid-payment leaves nothing: the retry pays, once": killed_worker,
}
"""The scenes by the promise that each puts to the test."""


def play(server: Server) -> Iterator[Scene]:
    """Play all scenes, and strike the balance."""
    shop, before = Storefront(server), Books.of(ALICE).balance
    for promise, act in SCENES.items():
        yield _play(promise, act(shop))
        shop.effect()  # what a scene that failed has left behind is not the next one's
    after, expected = Books.of(ALICE).balance, before - shop.due(ALICE)
    answer, right = (f"{balance} after, {expected} expected" for balance in (after, expected))
    balance = Step(f"Alice had {before}", answer, "", (right, ""))
    yield Scene("In all, Alice paid once for each key that was answered 201", (balance,))


def _play(promise: str, act: Iterator[Step]) -> Scene:
    steps: list[Step] = []
    try:
        steps.extend(act)
    except Exception as error:  # it belongs to what the scene shows
        return Scene(promise, tuple(steps), f"{type(error).__name__}: {error}")
    return Scene(promise, tuple(steps))
