"""A round: clients pay, faults are injected, and in the end all is compared."""

import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from .checker import Breach, check
from .clients import Clients
from .ledger import DEFINITE, Ledger
from .matrix import FAULTS, Fault, wait_until_free
from .proxy import LOCKED, Trap
from .world import Session, World

_REACHED = 30.0
"""Seconds in which some client must come to a step."""


@dataclass
class Tally:
    """What was counted for one fault."""

    injected: int = 0
    requests: int = 0
    acknowledged: int = 0
    """Keys that were answered 201."""
    breaches: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Until the key of the request that was hit was free, where its row was locked."""

    def add(self, other: "Tally") -> None:
        """Count another in."""
        self.injected += other.injected
        self.requests += other.requests
        self.acknowledged += other.acknowledged
        self.breaches += Counter(other.breaches)
        self.seconds += other.seconds


@dataclass
class Round:
    """Some faults, chosen by a seed, and what came of them."""

    seed: int
    names: list[str]
    faults: int
    end: float
    """When to stop at the latest, by `time.monotonic`."""
    tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    breaches: list[Breach] = field(default_factory=list)

    def run(self, world: World, url: str, amounts: Iterator[int]) -> None:
        """Let clients pay, inject, compare, and empty the tables."""
        with TemporaryDirectory(prefix="shop-ledger-") as folder:
            ledger = Ledger(Path(folder, "ledger.jsonl"))
            clients = Clients(url, self.seed, ledger, amounts=amounts)
            chance = random.Random(self.seed)  # noqa: S311  # repeatable, not secret
            clients.fault = self.names[0]
            with clients.paying():
                for _ in range(self.faults):
                    if time.monotonic() > self.end:
                        break
                    fault = FAULTS[chance.choice(self.names)]
                    clients.fault = fault.name
                    self._inject(world, fault, chance)
            with world.session() as session:
                _wait_for_silence(session)
                self.breaches = check(ledger, session)
                session.execute("TRUNCATE shop_payment, idempotency_key CASCADE")
                session.execute("UPDATE shop_account SET balance = 1e9")
            for attempts in ledger.payments().values():
                tally = self.tallies[attempts[0].fault]
                tally.requests += len(attempts)
                tally.acknowledged += any(a.status == DEFINITE for a in attempts)
            for breach in self.breaches:
                self.tallies[breach.fault].breaches[breach.kind] += 1

    def _inject(self, world: World, fault: Fault, chance: random.Random) -> None:
        trap = Trap(chance.choice(fault.steps), chance.choice(fault.moments))
        world.proxy.arm(trap)
        if not trap.sprung.wait(_REACHED):
            raise TimeoutError(f"No request came to the step {trap.step!r}.")
        link = trap.link
        if link is None:
            raise RuntimeError("A trap was sprung by nobody.")
        began, cut_after = time.monotonic(), None
        try:
            cut_after = fault.inject(world, link, chance)
        finally:
            trap.release(cut_after)
        self.tallies[fault.name].injected += 1
        if link.key and trap.step in LOCKED:
            wait_until_free(world, link.key)
            self.tallies[fault.name].seconds.append(time.monotonic() - began)


def _wait_for_silence(session: Session) -> None:
    """Let requests end whose clients have given up, so that what they do counts, too."""
    deadline = time.monotonic() + _REACHED
    while session.execute(
        "SELECT 1 FROM pg_stat_activity"
        " WHERE application_name LIKE 'shop-%' AND state IS DISTINCT FROM 'idle'"
    ).rowcount:
        if time.monotonic() > deadline:
            raise TimeoutError("A request of the shop does not end.")
        time.sleep(0.05)


def rounds(  # noqa: PLR0913  # what the command line says
    world: World, url: str, names: list[str], *, seed: int, faults: int, seconds: float
) -> Iterator[Round]:
    """Run rounds of at most 100 faults until there were enough of them, or the time is over."""
    end = time.monotonic() + seconds
    amounts = itertools.count(1)
    while faults > 0 and time.monotonic() < end:
        one = Round(seed, names, min(faults, 100), end)
        one.run(world, url, amounts)
        faults -= one.faults
        seed += 1
        yield one


def append(path: Path, one: Round) -> None:
    """Keep a round's tallies as a line of a file."""
    with path.open("a") as file:
        file.write(json.dumps({name: asdict(tally) for name, tally in one.tallies.items()}) + "\n")


def read(path: Path) -> list[dict[str, Tally]]:
    """Give the tallies of the rounds that a file keeps."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [{name: Tally(**values) for name, values in json.loads(line).items()} for line in lines]
