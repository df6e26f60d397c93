"""Who sends requests when: every variant has its turn in every round, whatever the way."""

import argparse
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from benchmarks import tables

from . import load, process, served
from .peers import BARE
from .ratios import FIRST, REPLAY, Times
from .served import Place

Bursts = Mapping[str, Callable[[list[str]], list[float]]]
"""By the variant's name, what sends a request for each key and gives the seconds."""

Measured = Mapping[tuple[str, str], Times]
"""By the variant's name, and `FIRST` or `REPLAY`."""

GOALS: Final = {"http": {FIRST: 1.15, REPLAY: 0.45}, "process": {FIRST: 1.30, REPLAY: 0.45}}
"""The most that this app is to take, as a ratio over the bare view's first request."""


@contextmanager
def through_http(places: list[Place], arguments: argparse.Namespace) -> Iterator[Bursts]:
    """Have a server for each."""
    with ExitStack() as servers:
        bursts = {}
        for place in places:
            url = servers.enter_context(served.serve(place, arguments.workers, arguments.threads))
            bursts[place.peer.name] = partial(
                load.burst, url, connections=arguments.connections, folder=place.folder
            )
        yield bursts


@contextmanager
def in_process(places: list[Place], _arguments: argparse.Namespace) -> Iterator[Bursts]:
    """Have a process for each that calls its own application."""
    with ExitStack() as callers:
        yield {
            place.peer.name: callers.enter_context(process.calling(place)).burst for place in places
        }


def measure(bursts: Bursts, arguments: argparse.Namespace) -> Measured:
    """Let each have its turn in every round: new keys, and then the same again."""
    measured: defaultdict[tuple[str, str], Times] = defaultdict(Times)
    chance = random.Random(arguments.seed)  # noqa: S311  # repeatable, not secret
    for burst in bursts.values():
        burst(_keys(arguments.requests))  # whatever is slow only once
    for _ in tables.progress(range(arguments.rounds), "rounds"):
        for name in chance.sample([*bursts], len(bursts)):
            keys = _keys(arguments.requests)
            measured[name, FIRST].rounds.append(bursts[name](keys))
            if name != BARE:
                measured[name, REPLAY].rounds.append(bursts[name](keys))
    return measured


def _keys(number: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(number)]
