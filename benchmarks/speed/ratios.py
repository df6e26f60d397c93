"""What was measured, put into proportion to the bare view of the same run."""

from dataclasses import dataclass, field
from statistics import fmean, median, quantiles
from typing import NamedTuple

FIRST, REPLAY = "first", "replay"


class Turn(NamedTuple):
    """A request that one of the variants is sent with each key."""

    name: str
    """The variant's."""
    kind: str
    """`FIRST` or `REPLAY`."""


@dataclass
class Times:
    """The seconds of one kind of request to one variant, round by round."""

    rounds: list[list[float]] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        """Of every round."""
        return [seconds for one in self.rounds for seconds in one]

    @property
    def p50(self) -> float:
        """The median of all."""
        return median(self.all)

    @property
    def p99(self) -> float:
        """What 99 of a hundred are below."""
        return quantiles(self.all, n=100, method="inclusive")[98]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much longer one takes than another."""

    p50: float
    """Of the medians of the whole run."""
    low: float
    high: float
    """Between which lie the middle half of the rounds, each with the ratio of its own medians."""
    p99: float
    mean: float

    def __str__(self) -> str:
        return f"{self.p50:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(times: Times, bare: Times) -> Ratio:
    """Compare the same rounds of two variants."""
    pairs = zip(times.rounds, bare.rounds, strict=True)
    each = [median(mine) / median(its) for mine, its in pairs]
    low, _, high = quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return Ratio(
        times.p50 / bare.p50, low, high, times.p99 / bare.p99, fmean(times.all) / fmean(bare.all)
    )
