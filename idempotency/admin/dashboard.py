"""What the admin shows above its list: how many keys there are, and what becomes of them.

No figure takes a look at the whole table. The number of keys is PostgreSQL's estimate, their
states are those of the newest, and the expired are counted up to a limit only.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from idempotency import database
from idempotency.models import IdempotencyKey, OutcomeCount, Purge
from idempotency.purges import OVERDUE
from idempotency.signals import Outcome

from . import activity
from .wording import elapsed, number

_HOURS = 24

SERIES = {
    "executed": (_("first requests"), {Outcome.EXECUTED}),
    "replayed": (_("replays"), {Outcome.REPLAYED}),
    "conflict": (_("conflicts (409)"), {Outcome.IN_PROGRESS, Outcome.RESPONSE_NOT_KEPT}),
    "mismatch": (_("mismatches (422)"), {Outcome.KEY_REUSED}),
    "failed": (
        _("failures"),
        {
            Outcome.FAILED,
            Outcome.UNAVAILABLE,
            Outcome.OUTCOME_UNKNOWN,
            Outcome.TRANSACTION_CONFLICT,
        },
    ),
    "refused": (_("refused (400, 429)"), {Outcome.REFUSED, Outcome.TOO_MANY_KEYS}),
}
"""The parts of a column, from the bottom up: what each is called, and which outcomes it has."""


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many of the newest keys are in a state."""

    state: str
    label: str
    count: str


@dataclass(frozen=True, slots=True)
class LatestPurge:
    """What is told of a purge."""

    ago: str
    rows: str
    is_ended: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a column, as SVG wants it: percents of the height from the top, with a point."""

    series: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Hour:
    """A column of the picture."""

    begins: datetime
    counts: list[int]
    """One for each of `SERIES`."""
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Series:
    """A line of the legend."""

    name: str
    label: str
    total: str


class Dashboard:
    """The figures, each asked for when the page shows it."""

    def __init__(self, window: int) -> None:
        self.window = window
        """How many keys are looked at, at most."""

    @cached_property
    def rows(self) -> str:
        """How many keys there are: exactly, where the window has all of them."""
        seen = sum(self._newest.values())
        if seen < self.window:
            return number(seen)
        rows = activity.estimated_rows()
        if rows is None:
            return gettext("more than %(count)s") % {"count": number(seen - 1)}
        return gettext("about %(count)s") % {"count": number(rows)}

    @cached_property
    def running(self) -> activity.Running:
        """The requests that run now."""
        return activity.running()

    @property
    def oldest(self) -> str | None:
        """For how long the oldest of them has been running."""
        return None if self.running.oldest is None else elapsed(self.running.oldest)

    @cached_property
    def states(self) -> list[StateCount]:
        """The newest keys by their state; states that none is in are left out."""
        return [
            StateCount(state.value, str(state.label), number(self._newest[state.value]))
            for state in IdempotencyKey.State
            if state.value in self._newest
        ]

    @cached_property
    def _newest(self) -> dict[str, int]:
        """How many of the newest keys are in each state."""
        newest: Any = IdempotencyKey.objects.primary().newest(self.window).with_state().order_by()
        return dict(newest.values_list("state").annotate(Count("pk")))

    @cached_property
    def expired(self) -> str:
        """How many keys wait for the purge, counted up to the window."""
        expired = IdempotencyKey.objects.primary().expired()
        count = expired.order_by("expires_at")[: self.window + 1].count()
        if count > self.window:
            return gettext("more than %(count)s") % {"count": number(self.window)}
        return number(count)

    @cached_property
    def latest_purge(self) -> LatestPurge | None:
        """The purge that was started last; None if there never was one."""
        purge: Any = (
            Purge.objects.using(database.alias())
            .annotate(now=Now())
            .order_by("-started_at")
            .first()
        )
        if purge is None:
            return None
        ago = elapsed(purge.now - purge.started_at)
        return LatestPurge(ago, number(purge.rows), purge.ended_at is not None)

    @cached_property
    def overdue(self) -> str | None:
        """How long the oldest expired key has been waiting, if that is too long."""
        lag = IdempotencyKey.objects.purge_lag()
        return elapsed(lag) if lag > OVERDUE else None

    @cached_property
    def hours(self) -> list[Hour]:
        """The columns of the picture, the current hour being the last."""
        now = timezone.now().replace(minute=0, second=0, microsecond=0)
        begins = [now - timedelta(hours=ago) for ago in reversed(range(_HOURS))]
        rows = OutcomeCount.objects.using(database.alias()).filter(hour__gte=begins[0])
        found = {(row.hour, row.outcome): row.count for row in rows}
        counts = [
            [
                sum(found.get((hour, it), 0) for it in outcomes)
                for _label, outcomes in SERIES.values()
            ]
            for hour in begins
        ]
        most = max(map(sum, counts)) or 1
        return [Hour(*pair, _bars(pair[1], most)) for pair in zip(begins, counts, strict=True)]

    @property
    def marks(self) -> list[Hour]:
        """The hours that are named beneath the picture."""
        return self.hours[::6]

    @property
    def most(self) -> str:
        """The height of the picture, in requests an hour."""
        return number(max(sum(hour.counts) for hour in self.hours))

    @property
    def series(self) -> list[Series]:
        """The legend, with what each has in all."""
        totals = map(sum, zip(*(hour.counts for hour in self.hours), strict=True))
        return [
            Series(name, str(label), number(total))
            for (name, (label, _outcomes)), total in zip(SERIES.items(), totals, strict=True)
        ]


def _bars(counts: list[int], most: int) -> list[Bar]:
    """Stack what an hour has."""
    bars = []
    top = 100.0
    for name, count in zip(SERIES, counts, strict=True):
        height = 100 * count / most
        top -= height
        if count:
            bars.append(Bar(name, f"{top:.2f}", f"{height:.2f}"))
    return bars
