"""Live requests while a purge runs and while none does, in turns: how long they take."""

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import nan
from multiprocessing.connection import Connection
from statistics import quantiles
from typing import Final

from benchmarks.traffic import Crowd
from idempotency.models import IdempotencyKey

_PAUSE: Final = 0.3
"""Seconds between windows, for what the last one left to do."""


@dataclass(frozen=True, slots=True)
class Purge:
    """A way to purge."""

    batch_size: int
    pause: float
    """Seconds between batches."""

    @classmethod
    def parse(cls, text: str) -> "Purge":
        """Read ``1000:20``: a batch size, and a pause in milliseconds."""
        batch_size, _, pause = text.partition(":")
        purge = cls(int(batch_size), float(pause) / 1000)
        if purge.batch_size < 1 or purge.pause < 0:
            raise ValueError(text)
        return purge

    def __str__(self) -> str:
        return f"batches of {self.batch_size:,}, {self.pause * 1000:g} ms between"

    def run(self, *, rows: int | None = None, seconds: float | None = None) -> int:
        """Purge until nothing is left or a budget is spent; give the number of rows."""
        purged = IdempotencyKey.objects.purge(
            batch_size=self.batch_size,
            pause=self.pause,
            max_rows=rows,
            max_seconds=seconds,
        )
        return int(purged.rows)


@dataclass(slots=True)
class Measured:
    """What one way to purge, or none, did to live requests."""

    windows: list[list[float]] = field(default_factory=list)
    """How many seconds the requests took."""
    rows: int = 0
    """How many rows were purged."""
    busy: float = 0
    """Seconds that the purge took."""

    @property
    def seconds(self) -> list[float]:
        """How long all requests took."""
        return [seconds for window in self.windows for seconds in window]

    def half(self) -> "Measured":
        """Give every other window: what it differs by from all is chance."""
        return Measured(self.windows[::2])

    def percentile(self, number: int) -> float:
        """Give how long at most that share of the requests took, in milliseconds."""
        if len(self.seconds) < 2:
            return nan
        return 1000 * quantiles(self.seconds, n=100, method="inclusive")[number - 1]


@contextmanager
def purger() -> Iterator[Connection]:
    """Give a pipe to a process that purges: send a `Purge` and its budgets, get rows and times."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()  # it is ready
        yield ours
    finally:
        ours.close()
        process.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Stretches of time in which requests come."""

    rounds: int
    """How many for each way to purge, and without a purge."""
    seconds: float
    """Length of each."""
    rows: int
    """Most rows to purge, in all together."""
    seed: int

    def measure(self, crowd: Crowd, purges: list[Purge]) -> dict[Purge | None, Measured]:
        """Let requests come with every purge and with none, in turns whose order changes.

        Where there is a purge, only those requests count that were due while it was at work.
        """
        measured: dict[Purge | None, Measured] = {None: Measured()}
        measured |= {purge: Measured() for purge in purges}
        order = list(measured)
        shuffle = random.Random(self.seed).shuffle  # noqa: S311  # repeatable, not secret
        budget = max(self.rows // (self.rounds * len(purges)), 1)
        with purger() as pipe:
            for _ in range(self.rounds):
                shuffle(order)
                for purge in order:
                    time.sleep(_PAUSE)
                    begin = time.monotonic()
                    end = begin + self.seconds
                    crowd.start(begin, end)
                    if purge:
                        pipe.send((purge, budget, self.seconds))
                        rows, begin, end = pipe.recv()
                        measured[purge].rows += rows
                        measured[purge].busy += end - begin
                    due = [sample for sample in crowd.samples() if begin <= sample.due < end]
                    measured[purge].windows.append([sample.seconds for sample in due])
        return measured


def _serve(pipe: Connection) -> None:
    pipe.send(Purge(1, 0).run(rows=1))  # whatever is slow only once
    while True:
        try:
            purge, rows, seconds = pipe.recv()
        except EOFError:
            return
        began = time.monotonic()
        pipe.send((purge.run(rows=rows, seconds=seconds), began, time.monotonic()))
