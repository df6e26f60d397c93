"""The fault harness finds nothing wrong, and finds what is wrong on purpose."""

import itertools
import time
from collections.abc import Iterator

import pytest

from benchmarks.faults.rounds import Round
from benchmarks.faults.world import World, world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    """Make one PostgreSQL for all tests of this module."""
    with world() as made:
        yield made


def injected(made: World, faults: int, *names: str, broken: str = "") -> Round:
    """Run one round of faults."""
    one = Round(seed=1, names=[*names], faults=faults, end=time.monotonic() + 60)
    with made.shop(broken) as url:
        one.run(made, url, itertools.count(1))
    return one


def test_the_promise_holds_under_faults(made: World) -> None:
    """Every payment is made once, whatever is killed, cut or restarted."""
    one = injected(made, 12, "kill", "terminate", "cut", "crash", "deadlock")

    assert one.breaches == []
    assert sum(tally.injected for tally in one.tallies.values()) == 12
    assert sum(tally.acknowledged for tally in one.tallies.values()) > 0


@pytest.mark.parametrize(
    ("broken", "fault", "number", "kind"),
    [
        ("lock", "delay", 8, "duplicate"),
        ("save", "kill", 12, "duplicate"),
        ("scope", "delay", 2, "loss"),
    ],
)
def test_a_promise_broken_on_purpose_is_noticed(
    made: World, broken: str, fault: str, number: int, kind: str
) -> None:
    """And the key's story is told, request by request."""
    one = injected(made, number, fault, broken=broken)

    found = {breach.kind: breach for breach in one.breaches}
    assert kind in found
    assert len(str(found[kind]).splitlines()) == len(found[kind].story) + 1 > 1
