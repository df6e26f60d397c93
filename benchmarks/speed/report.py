"""The tables."""

import argparse
from collections.abc import Mapping

from benchmarks import tables

from . import venvs
from .facts import Facts, Retry
from .peers import BARE, OURS, PEERS, TOLD
from .ratios import FIRST, REPLAY, Ratio, Turn, ratio
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
    bare = measured[Turn(BARE, FIRST)]
    rows = []
    for name in arguments.variants:
        cells: list[str] = []
        for kind in (FIRST, REPLAY):
            times = measured.get(Turn(name, kind))
            compared = times and ratio(times, bare)
            cells += _cells(compared) if compared else [""] * 3
        rows.append((name, *cells, f"{1000 * measured[Turn(name, FIRST)].p50:.2f}"))
    if OURS in arguments.variants:
        first, replay = (f"{GOALS[way][kind]:.2f}" for kind in (FIRST, REPLAY))
        rows.append((f"goal for {OURS}", first, "", "", replay, "", "", ""))
    tables.show(
        f"{_TITLES[way]}, {arguments.rounds} rounds of {arguments.requests} keys: ratios of "
        "medians (and the middle half of the rounds), p99 and means",
        ("variant", "first / bare", "p99", "mean", "replay / bare", "p99", "mean", "first ms"),
        rows,
    )


def _cells(compared: Ratio) -> list[str]:
    return [str(compared), f"{compared.p99:.2f}", f"{compared.mean:.2f}"]


def show_facts(found: Mapping[str, Facts]) -> None:
    """Print what each variant did with a retry, a copy and a killed worker."""
    tables.show(
        "What a request gets that has the key and the body of one that was answered 201",
        ("package", "kept in", "again", "by another user", "by nobody", "while the first runs"),
        [
            (
                name,
                PEERS[name].store or "nothing",
                _again(facts.retry),
                _foreign(facts.foreign),
                _foreign(facts.anonymous),
                _copy(facts.copy),
            )
            for name, facts in found.items()
        ],
    )
    tables.show(
        "The worker is killed, and the request sent again until it is answered: payments there are "
        "then, and seconds",
        ("package", "in the view", "after its commit", "before the answer is sent"),
        [(name, *map(_killed, facts.killed.values())) for name, facts in found.items()],
    )


def _again(retry: Retry) -> str:
    if retry.effects > 1:
        return "same bytes, PAYS AGAIN" if retry.is_same else "PAYS AGAIN"
    return "same bytes" if retry.is_same else f"{retry.status}, other bytes"


def _foreign(retry: Retry) -> str:
    """Say whether somebody else is told what only the first caller should be."""
    if retry.is_same:
        return "LEAK, that answer"
    return "their own payment" if retry.effects > 1 else str(retry.status)


def _copy(retry: Retry) -> str:
    if retry.effects > 1:
        return "PAYS AGAIN"
    return f"{retry.status or 'no answer'} after {retry.seconds:.1f} s"


def _killed(retry: Retry) -> str:
    if not retry.is_answered:
        return f"{retry.effects}, {retry.status} for {retry.seconds:.0f} s and more"
    return f"{retry.effects}, {retry.seconds:.2f} s"
