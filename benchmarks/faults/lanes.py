"""The lanes of a round: in each one fault after another is injected."""

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg

from .checker import Payment
from .clients import Clients
from .evidence import Strike
from .matrix import Fault
from .observer import Observer
from .proxy import Trap
from .records import Record
from .scene import Missed, Scene
from .uploads import Cut, UploadFault
from .world import World

_REACHED = 60.0
"""Seconds in which some client must come to a step, and be done with a request that is cut."""


@dataclass
class Lanes:
    """Injects faults into what clients send, several at once."""

    world: World
    clients: Clients
    record: Record
    faults: Sequence[Fault | UploadFault]
    number: int
    """How many are tried at most."""
    end: float
    """When to stop at the latest, by `time.monotonic`."""

    def __post_init__(self) -> None:
        self.strikes: list[Strike] = []
        self._rows: defaultdict[UUID, set[str]] = defaultdict(set)
        """The faults that have struck at a key's row."""
        self._payments: defaultdict[Payment, set[str]] = defaultdict(set)
        """The faults that have struck at a request on its way."""
        self._numbers = itertools.count()
        self._under_way = 0
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        """Inject all, in so many lanes."""
        with ThreadPoolExecutor(number) as pool:
            lanes = [pool.submit(self._lane, n) for n in range(number)]
        for lane in lanes:
            lane.result()

    def hits(self, rows: dict[UUID, Payment]) -> dict[Payment, set[str]]:
        """Return the faults that have struck at each payment, of which these are the rows."""
        found = defaultdict(set, {payment: {*names} for payment, names in self._payments.items()})
        for row in self._rows.keys() & rows.keys():
            found[rows[row]] |= self._rows[row]
        return dict(found)

    def _lane(self, number: int) -> None:
        seed = f"{self.record.seed}-{number}"
        chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
        weights = [fault.weight for fault in self.faults]
        with self.world.observer() as observer, self._ending():
            while next(self._numbers) < self.number and time.monotonic() < self.end:
                (fault,) = chance.choices(self.faults, weights)
                if isinstance(fault, UploadFault):
                    self._cut(fault, chance)
                else:
                    self._inject(observer, fault, chance)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """End the other lanes soon where one fails."""
        try:
            yield
        except BaseException:
            self.end = 0
            raise

    def _cut(self, fault: UploadFault, chance: random.Random) -> None:
        cut = Cut(fault, chance)
        self.clients.arm(cut)
        if not cut.taken.wait(_REACHED):
            raise TimeoutError("No client sends a payment.")
        struck = cut.struck
        with (
            self._together(),
            self._noting(Strike(time.time(), fault.name, step=struck.door)) as it,
        ):
            if not cut.done.wait(_REACHED):
                raise TimeoutError("A request that is cut does not end.")
            it.moment = cut.part
        if cut.is_made:
            with self._lock:
                self._payments[struck.payment].add(fault.name)
                self._count(fault.name)

    def _inject(self, observer: Observer, fault: Fault, chance: random.Random) -> None:
        world = self.world
        trap = Trap(chance.choice(fault.steps), chance.choice(fault.moments))
        world.proxy.arm(trap)
        if not trap.sprung.wait(_REACHED):
            raise TimeoutError(f"No request came to the step {trap.step!r}.")
        scene, survived = Scene(world, observer, trap, chance), world.survived
        strike = Strike(time.time(), fault.name, trap.step, trap.moment, scene.worker, scene.row)
        try:
            with self._together(), self._noting(strike):
                fault.inject(scene)
        except Missed:
            return
        except psycopg.OperationalError:
            if world.upheavals == survived:
                raise
            return  # another fault has ended the rival, too
        finally:
            trap.release()
        seconds = []
        if scene.key:
            observer.wait_until_free(scene.key)
            seconds.append(time.monotonic() - scene.struck)
        with self._lock:
            self._rows[UUID(scene.row)].add(fault.name)
            self._count(fault.name, *seconds)

    def _count(self, name: str, *seconds: float) -> None:
        self.record.injected[name] += 1
        self.record.seconds.setdefault(name, []).extend(seconds)

    @contextmanager
    def _noting(self, strike: Strike) -> Iterator[Strike]:
        """Note down what is done, for the case that a promise is broken."""
        self.strikes.append(strike)
        try:
            yield strike
        except BaseException as error:
            strike.outcome = repr(error)
            raise
        finally:
            strike.took = time.time() - strike.began

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
