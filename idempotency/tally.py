"""The tally: outcomes by the hour, for a picture in the admin.

A replay writes nothing, so a process counts in its memory, and writes its counts down now and
then, in one statement, when a request is over: nobody waits for it. A process that is killed takes
its last counts with it, ten seconds' worth at most while it is busy: the tally is a picture,
not an audit.
"""

import logging
import os
import time
from collections import Counter
from datetime import UTC, datetime
from threading import Lock
from typing import Any, NamedTuple

from django.db import connections

from . import database, statements
from .signals import Outcome

logger = logging.getLogger("idempotency")

INTERVAL = 10.0
"""Seconds between two flushes of a process. Pictures of hours need no finer ones; and a thousand
processes write a hundred short statements a second in all."""


class _Place(NamedTuple):
    """Where a count belongs."""

    alias: str
    database: str
    """Its name: what a test has counted must not go to the database that comes after the test's."""
    hour: int
    """Since the epoch."""
    outcome: str


class Tally:
    """The counts of one process that are not written down yet."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a child that was forked leaves the counts to its parent."""
        self._lock = Lock()
        self._counts: Counter[_Place] = Counter()
        self._due = time.monotonic()

    def count(self, outcome: Outcome, **_told: Any) -> None:
        """Count one request, as told by the signal ``answered``."""
        alias = database.alias()
        connection = connections[alias]
        if connection.in_atomic_block:
            return  # of a TestCase, which would take it back
        name = str(connection.settings_dict["NAME"])
        with self._lock:
            self._counts[_Place(alias, name, int(time.time()) // 3600, outcome.value)] += 1

    def flush_when_due(self, **_told: Any) -> None:
        """Write the counts down, if the last time is a while ago; at the end of a request."""
        if self._counts and time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write the counts down; those that cannot be are kept for the next time."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
            self._due = time.monotonic() + INTERVAL
        for alias in {place.alias for place in taken}:
            counts = Counter({place: n for place, n in taken.items() if place.alias == alias})
            if not _write(alias, counts):
                with self._lock:
                    self._counts.update(counts)


def _write(alias: str, counts: Counter[_Place]) -> bool:
    connection = connections[alias]
    if connection.in_atomic_block:
        return False  # of a TestCase, again
    name = str(connection.settings_dict["NAME"])
    rows = [
        (datetime.fromtimestamp(place.hour * 3600, UTC), place.outcome, number)
        for place, number in counts.items()
        if place.database == name
    ]
    if not rows:
        return True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statements.COUNT, [list(column) for column in zip(*rows, strict=True)])
        connection.close_if_unusable_or_obsolete()  # Django has asked it before us
    except Exception as error:
        logger.warning("Could not write down the counts of outcomes: %s", error)
        return False
    return True


tally = Tally()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=tally.forget)
