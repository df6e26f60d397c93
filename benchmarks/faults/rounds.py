"""A round: clients pay, faults are injected, several at once, and in the end all is compared."""

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from . import evidence
from .checker import Breach, Checker, Payment
from .clients import Clients
from .lanes import Lanes
from .ledger import DEFINITE, Attempt, Ledger
from .matrix import FAULTS, Fault
from .observer import Observer
from .records import Record
from .setting import ISOLATIONS, STANDBYS, Setting
from .uploads import UploadFault
from .world import World

LANES = 6
"""Faults that are under way at the same time, each at a request of its own."""

ROUND = 150
"""Faults at most, after which all is compared."""


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

    def run(self, world: World, urls: dict[str, str], amounts: Iterator[int]) -> None:
        """Empty the tables, let clients pay, inject, and compare."""
        world.set_up(self.setting)
        world.losses.clear()
        with world.server.connect() as session:
            session.execute("TRUNCATE shop_payment, idempotency_key CASCADE")
            session.execute("UPDATE shop_account SET balance = 1e9")
        with TemporaryDirectory(prefix="shop-ledger-") as folder:
            ledger = Ledger(Path(folder, "ledger.jsonl"))
            clients = Clients(urls, self.seed, ledger, amounts)
            with clients.paying():
                lanes = Lanes(world, clients, self.record, self._faults(), self.faults, self.end)
                lanes.run(self.lanes)
            self._compare(world, ledger, lanes)
        self.record.took = time.monotonic() - self.record.began

    def _faults(self) -> list[Fault | UploadFault]:
        return [FAULTS[name] for name in self.names if FAULTS[name].fits(self.setting)]

    def _compare(self, world: World, ledger: Ledger, lanes: Lanes) -> None:
        with world.observer() as observer:
            _wait_for_silence(observer)
        with world.server.connect() as session:
            checker = Checker(ledger, session, world.losses)
            self.breaches = checker.check()
            rows = checker.rows()
        record, asked = self.record, ledger.payments()
        self._count_hits(lanes.hits(rows), asked)
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
            record.evidence = str(evidence.keep(ledger, world.server, lanes.strikes, stories))

    def _count_hits(
        self, hits: dict[Payment, set[str]], asked: dict[Payment, list[Attempt]]
    ) -> None:
        """Count what came of the payments that were hit, by the fault."""
        broken: defaultdict[Payment, list[str]] = defaultdict(list)
        for breach in self.breaches:
            if breach.story:
                broken[breach.story[0].payment].append(breach.kind)
        for payment, names in hits.items():
            counts = Counter([*broken[payment], *["requests"] * len(asked.get(payment, ()))])
            for name in names:
                self.record.hit[name] = Counter(self.record.hit.get(name)) + counts


def _longest(attempts: list[Attempt]) -> float:
    """Return for how long one of a payment's senders has retried, at most."""
    began: dict[int, float] = {}
    for attempt in attempts:
        began[attempt.sender] = min(attempt.sent, began.get(attempt.sender, attempt.sent))
    return max(attempt.came - began[attempt.sender] for attempt in attempts)


def _wait_for_silence(observer: Observer) -> None:
    """Wait for requests whose clients have given up, so that what they do counts, too."""
    silent = (
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE application_name LIKE 'shop-%%' AND state IS DISTINCT FROM 'idle')"
    )
    if not observer.wait_until(silent):
        raise TimeoutError("A request of the shop does not end.")


def settings(
    names: Sequence[str], *, isolations: Sequence[str] = ISOLATIONS, is_pooled: bool = False
) -> list[Setting]:
    """Return the settings in turn that rounds have, in which one of some faults can be injected."""
    faults = [FAULTS[name] for name in names]
    needed = {it for it in STANDBYS for fault in faults if _needs(fault, it)}
    standbys = [mode for mode in STANDBYS if mode == "none" or mode in needed]
    found = itertools.starmap(
        Setting, itertools.product(isolations, standbys, (False, True) if is_pooled else (False,))
    )
    return [it for it in found if any(fault.fits(it) for fault in faults)]


def _needs(fault: Fault | UploadFault, standby: str) -> bool:
    return fault.fits(Setting(standby=standby)) and not fault.fits(Setting())


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
