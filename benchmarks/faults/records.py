"""What is kept of a round, as a line of a file, and the tables that many rounds make."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import tables

COLUMNS = ("loss", "duplicate", "difference", "foreign", "torn")
"""Broken promises that have a column of their own; see `checker.KINDS`."""


@dataclass
class Record:
    """What was done in a round, and what came of it."""

    seed: int
    setting: str
    injected: dict[str, int] = field(default_factory=Counter)
    """By the fault."""
    hit: dict[str, dict[str, int]] = field(default_factory=dict)
    """By the fault: how many requests there were with the keys that it hit, all in all, and the
    breaches of these keys by their kind."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By the fault: until the key of the request that was hit was free, where it was locked."""
    together: int = 0
    """Faults that were injected while another one was."""
    requests: int = 0
    acknowledged: int = 0
    """Payments that were answered 201."""
    forgotten: int = 0
    """Of those, the ones that an asynchronous standby did not have, with their answer."""
    longest: float = 0
    """Seconds that a client retried until it was answered, at most."""
    answers: dict[str, int] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)
    """Their kinds."""
    stories: list[str] = field(default_factory=list)
    """The first few breaches in full."""
    evidence: str = ""
    """Where what is known of them is kept; see `evidence.keep`."""
    began: float = field(default_factory=time.monotonic)
    took: float = 0
    """Seconds, all in all."""


def append(path: Path, record: Record) -> None:
    """Keep a round as a line of a file."""
    with path.open("a") as file:
        file.write(json.dumps(vars(record)) + "\n")


def read(path: Path) -> list[Record]:
    """Return the rounds that a file keeps."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Record(**json.loads(line)) for line in lines]


def show(records: list[Record]) -> None:
    """Print what came of rounds."""
    faults = sum(sum(record.injected.values()) for record in records)
    together = sum(record.together for record in records)
    minutes = sum(record.took for record in records) / 60
    tables.console.print(
        f"{faults:,} faults in {minutes:.1f} minutes, {together:,} of them while another was under"
        " way"
    )
    tables.show(
        "Broken promises, by the setting; and what was lost with an asynchronous standby",
        ("setting", "faults", "requests", "acknowledged", *COLUMNS, "other", "lost", "longest s"),
        [*_settings(records)],
    )
    tables.show(
        "Faults, what came of the keys they hit, and the time until their rows were free again",
        ("fault", "injected", "requests", "duplicates", "losses", "p50 ms", "max ms"),
        [*_faults(records)],
    )
    answers: Counter[str] = sum((Counter(record.answers) for record in records), Counter())
    tables.show("Answers", ("answer", "times"), answers.most_common())
    for record in records:
        for story in record.stories:
            tables.console.print(f"\n{story}")
        if record.evidence:
            tables.console.print(f"\nAll that is known of it is in {record.evidence}")


def _settings(records: list[Record]) -> Iterable[tuple[object, ...]]:
    names = sorted({record.setting for record in records})
    for name, chosen in [
        *((name, [it for it in records if it.setting == name]) for name in names),
        ("in all", records),
    ]:
        breaches = Counter(kind for record in chosen for kind in record.breaches)
        yield (
            name,
            sum(sum(record.injected.values()) for record in chosen),
            sum(record.requests for record in chosen),
            sum(record.acknowledged for record in chosen),
            *(breaches[kind] for kind in COLUMNS),
            breaches.total() - sum(breaches[kind] for kind in COLUMNS),
            sum(record.forgotten for record in chosen),
            max((record.longest for record in chosen), default=0.0),
        )


def _faults(records: list[Record]) -> Iterable[tuple[object, ...]]:
    injected: Counter[str] = sum((Counter(record.injected) for record in records), Counter())
    for name, times in sorted(injected.items()):
        hits = (Counter(record.hit.get(name)) for record in records)
        hit: Counter[str] = sum(hits, Counter())
        seconds = [it for record in records for it in record.seconds.get(name, [])]
        bounds = (1000 * median(seconds), 1000 * max(seconds)) if seconds else ("-", "-")
        yield name, times, hit["requests"], hit["duplicate"], hit["loss"], *bounds
