"""The tables."""

import argparse
from collections.abc import Mapping

from benchmarks import tables

from . import venvs
from .facts import Facts, Retry
from .peers import BARE, OURS, PEERS, TOLD
from .ratios import FIRST, REPLAY, ratio
from .served import Place
from .turns import GOALS, Measured

_TITLES = {"http": "Through HTTP", "process": "In process"}


def show_versions(places: list[Place]) -> None:
    """Print what all have alike, and what each has of its own."""
    found = {}
    for place in places:
        packages = venvs.versions(place.python)
        found[place.peer.name] = {name: packages[name] for name in TOLD & packages.keys()}
    alike = set.intersection(*(set(packages.items()) for packages in found.values()))
    tables.console.print(f"all variants: {_list(dict(alike))}")
    for name, packages in found.items():
        if others := dict(packages.items() - alike):
            tables.console.print(f"{name}: {_list(others)}")


def _list(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {packages[name]}" for name in sorted(packages, key=str.lower))


def show_ratios(way: str, measured: Measured, arguments: argparse.Namespace) -> None:
    """Print how much longer than the bare view each takes, with the goals for ours."""
    bare = measured[BARE, FIRST]
    rows = []
    for name in arguments.variants:
        cells: list[str] = []
        for kind in (FIRST, REPLAY):
            times = measured.get((name, kind))
            compared = times and ratio(times, bare)
            cells += [str(compared), f"{compared.p99:.2f}"] if compared else ["", ""]
        milliseconds = (1000 * measured[name, FIRST].p50, 1000 * measured[name, FIRST].p99)
        rows.append((name, *cells, *(f"{it:.2f}" for it in milliseconds)))
    if OURS in arguments.variants:
        goals = GOALS[way]
        rows.append(
            (f"goal for {OURS}", f"{goals[FIRST]:.2f}", "", f"{goals[REPLAY]:.2f}", *[""] * 3)
        )
    tables.show(
        f"{_TITLES[way]}, {arguments.rounds} rounds of {arguments.requests} requests: ratios of "
        "p50 (and between which the middle half of the rounds lies) and p99",
        ("", "first / bare", "p99", "replay / bare", "p99", "first p50 ms", "p99 ms"),
        rows,
    )


def show_facts(found: Mapping[str, Facts]) -> None:
    """Print what each variant did with a retry, a copy and a killed worker."""
    tables.show(
        "A second request with the key and body of one that was answered 201, and one at the same "
        "time: its answer, and the payments then",
        ("", "kept in", "retry", "same bytes", "another user", "nobody", "at the same time"),
        [
            (
                name,
                PEERS[name].store or "nothing",
                _told(facts.retry),
                "yes" if facts.retry.is_same else "no",
                _told(facts.foreign) + _leak(facts.foreign),
                _told(facts.anonymous) + _leak(facts.anonymous),
                _told(facts.copy) + _after(facts.copy),
            )
            for name, facts in found.items()
        ],
    )
    tables.show(
        "The worker is killed, and the request sent again until it is answered: the last answer, "
        "the payments then, and the seconds",
        ("", "in the view", "after its commit", "before the answer is sent"),
        [
            (name, *(f"{_told(it)}{_after(it)}" for it in facts.killed.values()))
            for name, facts in found.items()
        ],
    )


def _told(retry: Retry) -> str:
    return f"{retry.status or 'none'}, {retry.effects}"


def _leak(retry: Retry) -> str:
    return " LEAK" if retry.is_same else ""


def _after(retry: Retry) -> str:
    return f", {retry.seconds:.1f} s"
