"""Who sends requests when: every variant has its turn with every key, whatever the way."""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks import tables

from . import load, process, served
from .peers import BARE
from .ratios import FIRST, REPLAY, Times, Turn
from .served import Place

Round = Callable[[Sequence[Turn], Sequence[str]], Mapping[Turn, list[float]]]
"""Lets all have their turns, key by key, and gives the seconds that each took."""

Measured = Mapping[Turn, Times]

GOALS: Final = {"http": {FIRST: 1.15, REPLAY: 0.45}, "process": {FIRST: 1.30, REPLAY: 0.45}}
"""The most that this app is to take, as a ratio over the bare view's first request."""


@contextmanager
def through_http(places: list[Place], arguments: argparse.Namespace) -> Iterator[Round]:
    """Have a server for each."""
    with ExitStack() as servers:
        urls = {
            place.peer.name: servers.enter_context(
                served.serve(place, arguments.workers, arguments.threads)
            )
            for place in places
        }

        def in_turns(turns: Sequence[Turn], keys: Sequence[str]) -> Mapping[Turn, list[float]]:
            return load.in_turns(urls, turns, keys, arguments.connections, places[0].folder)

        yield in_turns


@contextmanager
def in_process(places: list[Place], _arguments: argparse.Namespace) -> Iterator[Round]:
    """Have a process for each that calls its own application."""
    with ExitStack() as callers:
        bursts = {
            place.peer.name: callers.enter_context(process.calling(place)).burst for place in places
        }

        def in_turns(turns: Sequence[Turn], keys: Sequence[str]) -> Mapping[Turn, list[float]]:
            found: defaultdict[Turn, list[float]] = defaultdict(list)
            for key in keys:
                for turn in turns:
                    found[turn] += bursts[turn.name]([key])
            return found

        yield in_turns


def measure(names: Sequence[str], in_turns: Round, arguments: argparse.Namespace) -> Measured:
    """Measure round by round, in each of which the turns have another order.

    A key is new to all variants in the first half of its turns, and known in the second.
    """
    measured: defaultdict[Turn, Times] = defaultdict(Times)
    chance = random.Random(arguments.seed)  # noqa: S311  # repeatable, not secret
    once = process.new_keys(max(20, arguments.requests // 4))  # for what is slow only once
    in_turns(_turns(names), once)
    for _ in tables.progress(range(arguments.rounds), "rounds"):
        order = chance.sample(names, len(names))
        for turn, seconds in in_turns(_turns(order), process.new_keys(arguments.requests)).items():
            measured[turn].rounds.append(seconds)
    return measured


def _turns(order: Sequence[str]) -> list[Turn]:
    firsts = [Turn(name, FIRST) for name in order]
    return firsts + [Turn(name, REPLAY) for name in order if name != BARE]
