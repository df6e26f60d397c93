"""How the admin puts things into words: times, numbers, and how a key stands."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.formats import localize, number_format
from django.utils.timesince import timesince
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext, ngettext

from idempotency.models import IdempotencyKey

State = IdempotencyKey.State

_ANY_DAY = datetime(2000, 1, 1, tzinfo=UTC)


def elapsed(time: timedelta, depth: int = 2) -> str:
    """Say how much time it is: in seconds below a minute, else as Django does.

    Args:
        depth: In how many units, as in "2 hours, 3 minutes".
    """
    seconds = max(0, int(time.total_seconds()))
    if seconds < 60:
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    return timesince(_ANY_DAY, _ANY_DAY + time, depth=depth)


def number(value: int) -> str:
    """Write a number with separators: millions cannot be read without."""
    return number_format(value, force_grouping=True)


def state_label(key: Any) -> str:
    """Say in a few words how a key stands."""
    label = str(State(key.state).label)
    if key.state == State.COMPLETED:
        return f"{label} {key.status_code}"
    if key.state == State.FAILED:
        label = ngettext("failed once", "failed %(count)d times", key.attempts)
        return label % {"count": key.attempts}
    return label


def distance(time: timedelta, depth: int = 2) -> str:
    """Say how far away a moment is that comes after a time, or came before it."""
    sentence = gettext("%(time)s ago") if time < timedelta(0) else gettext("in %(time)s")
    return sentence % {"time": elapsed(abs(time), depth)}


def local(when: datetime) -> str:
    """Write a moment in the reader's language and time zone."""
    return str(localize(localtime(when) if is_aware(when) else when))
