"""Requests without a socket: each variant calls its own WSGI application, see ``paying.calls``."""

import json
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .served import Place


@dataclass(frozen=True, slots=True)
class Caller:
    """A process that calls the application of a variant."""

    place: Place
    process: "subprocess.Popen[bytes]"

    def burst(self, keys: Sequence[str]) -> list[float]:
        """Make a payment for each key, one after another; give the seconds that each took.

        Raises:
            AssertionError: One was not answered 201.
            ChildProcessError: The process has ended.
        """
        asking, told = self.process.stdin, self.process.stdout
        if asking is None or told is None:
            raise TypeError("The process has no pipes.")
        asking.write(json.dumps(list(keys)).encode() + b"\n")
        asking.flush()
        line = told.readline()
        if not line:
            raise ChildProcessError(self.place.complaint())
        calls = json.loads(line)
        if calls["statuses"] != {"201": len(keys)}:
            raise AssertionError(f"{self.place.peer.name} was answered {calls['statuses']}")
        seconds: list[float] = calls["seconds"]
        return seconds


def new_keys(number: int) -> list[str]:
    """Give keys that nobody has sent yet."""
    return [str(uuid.uuid4()) for _ in range(number)]


@contextmanager
def calling(place: Place) -> Iterator[Caller]:
    """Start the process that calls, and end it."""
    pipe = subprocess.PIPE
    process = place.spawn("paying.calls", stdin=pipe, stdout=pipe)
    with process:
        try:
            yield Caller(place, process)
        finally:
            process.terminate()
