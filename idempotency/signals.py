"""What is told of every covered request: the signal ``answered``, and its outcomes.

One signal, not one for each outcome: whoever counts wants all of them, and a new outcome must not
pass them by. Whoever wants one connects to its sender::

    @receiver(answered, sender=Outcome.KEY_REUSED)
    def tell_support(operation, scope, **kwargs): ...
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Self

from django.db.models import TextChoices
from django.dispatch import Signal
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _


class Outcome(TextChoices):
    """How a covered request ended. "Ran" is said of its view."""

    EXECUTED = "executed", _("executed")
    """It ran, and its answer is kept: a first request, or a retry of one that had failed."""
    REPLAYED = "replayed", _("replayed")
    """It was given the answer that stood; nothing ran."""
    FAILED = "failed", _("failed")
    """It left no answer: what ran was rolled back, and the same request may be sent again."""
    IN_PROGRESS = "in_progress", _("in progress")
    """409: another request with the key was running, for longer than this one would wait."""
    KEY_REUSED = "key_reused", _("key reused")
    """422: the key stands for another request."""
    RESPONSE_NOT_KEPT = "response_not_kept", _("response not kept")
    """409: the answer that stood was too large to keep."""
    REFUSED = "refused", _("refused")
    """400: no key, or none that can be used."""
    TOO_MANY_KEYS = "too_many_keys", _("too many keys")
    """429: the caller has as many keys as one may have."""
    UNAVAILABLE = "unavailable", _("unavailable")
    """503: the database of the keys could not be reached."""
    OUTCOME_UNKNOWN = "outcome_unknown", _("outcome unknown")
    """503: it ran or was replayed, and PostgreSQL did not confirm the commit."""
    TRANSACTION_CONFLICT = "transaction_conflict", _("transaction conflict")
    """503: it ran, and PostgreSQL gave it up for another; all was rolled back."""


answered = Signal()
"""Sent once for every covered request, when its answer is made and its transaction has ended.

A receiver's exception is logged by Django and goes no further. The sender is the outcome.

Args:
    request: Django's `HttpRequest`.
    outcome: The `Outcome`.
    operation: Method and route, as in ``"POST payments/<int:pk>/"``: few values.
    scope, key: Whose key it is, and the whole key; None where it ended before that was known.
    attempt: Number of the attempt at the key; None where nothing ran.
    status_code: HTTP status of the answer; None where an exception went on to Django.
    waited: Seconds spent waiting for somebody else's attempt.
    overhead: Seconds spent on all but waiting and the view; the COMMIT is in it.
    first_trace: Trace and span id of the request whose answer stood, 16 and 8 bytes; b"" where
        none stood, or nobody traced it.
"""

current_trace: Callable[[], bytes] = bytes
"""Gives trace and span id of the current request as for ``first_trace``: b"" unless somebody who
traces, as `telemetry` does, puts a function here."""


class Stopwatch:
    """Adds up the seconds spent in its ``with`` blocks."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._began = perf_counter()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.seconds += perf_counter() - self._began


@dataclass(slots=True)
class Report:
    """What is told of one request, gathered while it is being answered."""

    outcome: Outcome = Outcome.FAILED
    scope: str | None = None
    key: str | None = None
    attempt: int | None = None
    status_code: int | None = None
    first_trace: bytes = b""
    waiting: Stopwatch = field(default_factory=Stopwatch)
    viewing: Stopwatch = field(default_factory=Stopwatch)


@contextmanager
def reporting(request: HttpRequest, operation: str) -> Iterator[Report]:
    """Send ``answered`` after the block, however it ends, with what the block has reported."""
    report = Report()
    total = Stopwatch()
    try:
        with total:
            yield report
    finally:
        answered.send_robust(
            sender=report.outcome,
            request=request,
            outcome=report.outcome,
            operation=operation,
            scope=report.scope,
            key=report.key,
            attempt=report.attempt,
            status_code=report.status_code,
            waited=report.waiting.seconds,
            overhead=total.seconds - report.waiting.seconds - report.viewing.seconds,
            first_trace=report.first_trace,
        )
