"""One target under Atheris: the child process of ``python -m benchmarks.fuzz``."""

import sys

import atheris

from .targets import TARGETS


def fuzz() -> None:
    """Fuzz the target that the first argument names; the others are libFuzzer's. Never returns."""
    program, name, *arguments = sys.argv
    target, _seeds = TARGETS[name]
    atheris.Setup([program, *arguments], target)
    atheris.Fuzz()
