"""A round: clients pay, faults are injected, several at once, and in the end all is compared."""

import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import psycopg

from . import evidence
from .checker import Breach, Checker, Payment
from .clients import Clients
from .ledger import DEFINITE, Attempt, Ledger
from .matrix import FAULTS, Fault, Missed, Scene
from .observer import Observer
from .proxy import Trap
from .records import Record
from .world import ISOLATIONS, STANDBYS, Setting, World

LANES = 6
"""Faults that are under way at the same time, each at a request of its own."""

ROUND = 150
"""Faults at most, after which all is compared."""

_REACHED = 60.0
"""Seconds in which some client must come to a step."""


@dataclass
class Round:
    """Some faults, chosen by a seed, and what came of them."""

    seed: int
    names: Sequence[str]
    faults: int
    end: float
    """When to stop at the latest, by `time.monotonic`."""
    setting: Setting = field(default_factory=Setting)
    lanes: int = LANES
    keeps_evidence: bool = False

    def __post_init__(self) -> None:
        self.record = Record(self.seed, str(self.setting))
        self.breaches: list[Breach] = []
        self._strikes: list[evidence.Strike] = []
        self._hit: defaultdict[UUID, set[str]] = defaultdict(set)
        """The faults that have struck at a key's row."""
        self._numbers = itertools.count()
        self._under_way = 0
        self._lock = threading.Lock()

    def run(self, world: World, urls: dict[str, str], amounts: Iterator[int]) -> None:
        """Empty the tables, let clients pay, inject, and compare."""
        world.set_up(self.setting)
        world.losses.clear()
        with world.server.connect() as session:
            session.execute("TRUNCATE shop_payment, idempotency_key CASCADE")
            session.execute("UPDATE shop_account SET balance = 1e9")
        with TemporaryDirectory(prefix="shop-ledger-") as folder:
            ledger = Ledger(Path(folder, "ledger.jsonl"))
            with Clients(urls, self.seed, ledger, amounts).paying():
                with ThreadPoolExecutor(self.lanes) as pool:
                    lanes = [pool.submit(self._lane, world, n) for n in range(self.lanes)]
                for lane in lanes:
                    lane.result()
            self._compare(world, ledger)
        self.record.took = time.monotonic() - self.record.began

    def _lane(self, world: World, number: int) -> None:
        chance = random.Random(f"{self.seed}-{number}")  # noqa: S311  # repeatable, not secret
        faults = [FAULTS[name] for name in self.names if FAULTS[name].fits(self.setting)]
        weights = [fault.weight for fault in faults]
        with world.observer() as observer, self._ending():
            while next(self._numbers) < self.faults and time.monotonic() < self.end:
                (fault,) = chance.choices(faults, weights)
                self._inject(world, observer, fault, chance)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Let the other lanes end soon where one fails."""
        try:
            yield
        except BaseException:
            self.end = 0
            raise

    def _inject(
        self, world: World, observer: Observer, fault: Fault, chance: random.Random
    ) -> None:
        trap = Trap(chance.choice(fault.steps), chance.choice(fault.moments))
        world.proxy.arm(trap)
        if not trap.sprung.wait(_REACHED):
            raise TimeoutError(f"No request came to the step {trap.step!r}.")
        scene, survived = Scene(world, observer, trap, chance), world.survived
        try:
            with self._together(), self._noting(fault, scene):
                fault.inject(scene)
        except Missed:
            return
        except psycopg.OperationalError:
            if world.upheavals == survived:
                raise
            return  # another fault has ended the rival, too
        finally:
            trap.release()
        seconds = None
        if scene.key:
            observer.wait_until_free(scene.key)
            seconds = time.monotonic() - scene.struck
        with self._lock:
            self._hit[UUID(scene.row)].add(fault.name)
            self.record.injected[fault.name] += 1
            self.record.seconds.setdefault(fault.name, []).extend([seconds] if seconds else [])

    @contextmanager
    def _noting(self, fault: Fault, scene: Scene) -> Iterator[None]:
        """Note down what is done, for the case that a promise is broken."""
        trap, began = scene.trap, time.time()
        strike = evidence.Strike(began, fault.name, trap.step, trap.moment, scene.worker, scene.row)
        self._strikes.append(strike)
        try:
            yield
        except BaseException as error:
            strike.outcome = repr(error)
            raise
        finally:
            strike.took = time.time() - began

    @contextmanager
    def _together(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
            self.record.together += self._under_way > 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def _compare(self, world: World, ledger: Ledger) -> None:
        with world.observer() as observer:
            _wait_for_silence(observer)
        with world.server.connect() as session:
            checker = Checker(ledger, session, world.losses)
            self.breaches = checker.check()
            rows = checker.rows()
        record, asked = self.record, ledger.payments()
        self._count_hits(rows, asked)
        payments = asked.values()
        record.requests = sum(map(len, payments))
        record.acknowledged = sum(any(a.status == DEFINITE for a in it) for it in payments)
        record.forgotten = len(checker.forgotten)
        record.longest = max(map(_longest, payments), default=0)
        record.answers = Counter(attempt.answer for it in payments for attempt in it)
        record.breaches = [breach.kind for breach in self.breaches]
        record.stories = [str(breach) for breach in self.breaches[:5]]
        if self.breaches and self.keeps_evidence:
            stories = "\n\n".join(map(str, self.breaches))
            record.evidence = str(evidence.keep(ledger, world.server, self._strikes, stories))

    def _count_hits(self, rows: dict[UUID, Payment], asked: dict[Payment, list[Attempt]]) -> None:
        """Count what came of the payments whose keys were hit, by the fault."""
        broken: defaultdict[Payment, list[str]] = defaultdict(list)
        for breach in self.breaches:
            if breach.story:
                broken[breach.story[0].payment].append(breach.kind)
        for row in self._hit.keys() & rows.keys():
            payment = rows[row]
            counts = Counter([*broken[payment], *["requests"] * len(asked.get(payment, ()))])
            for name in self._hit[row]:
                self.record.hit[name] = Counter(self.record.hit.get(name)) + counts


def _longest(attempts: list[Attempt]) -> float:
    """Give for how long one of a payment's senders has retried, at most."""
    began: dict[int, float] = {}
    for attempt in attempts:
        began[attempt.sender] = min(attempt.sent, began.get(attempt.sender, attempt.sent))
    return max(attempt.came - began[attempt.sender] for attempt in attempts)


def _wait_for_silence(observer: Observer) -> None:
    """Let requests end whose clients have given up, so that what they do counts, too."""
    silent = (
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE application_name LIKE 'shop-%%' AND state IS DISTINCT FROM 'idle')"
    )
    if not observer.wait_until(silent):
        raise TimeoutError("A request of the shop does not end.")


def settings(
    names: Sequence[str], *, isolations: Sequence[str] = ISOLATIONS, is_pooled: bool = False
) -> list[Setting]:
    """Give the settings in turn that rounds have, in which one of some faults can be injected."""
    standbys = [mode for mode in STANDBYS if mode == "none" or f"failover-{mode}" in names]
    found = itertools.starmap(
        Setting, itertools.product(isolations, standbys, (False, True) if is_pooled else (False,))
    )
    return [it for it in found if any(FAULTS[name].fits(it) for name in names)]


def rounds(  # noqa: PLR0913  # what the command line says
    world: World, urls: dict[str, str], names: Sequence[str], *, seed: int, faults: int,
    seconds: float, settings: Sequence[Setting],
) -> Iterator[Round]:  # fmt: skip
    """Run rounds until there were enough faults, or the time is over."""
    end = time.monotonic() + seconds
    amounts = itertools.count(1)
    while faults > 0 and time.monotonic() < end:
        setting = settings[seed % len(settings)]
        one = Round(seed, names, min(faults, ROUND), end, setting, keeps_evidence=True)
        one.run(world, urls, amounts)
        faults -= sum(one.record.injected.values())
        seed += 1
        yield one
