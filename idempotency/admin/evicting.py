"""Evicting: what it would mean for each key, doing it, and what to say of it.

Between the question and the answer a key may begin to run, or be answered. So the question carries
a version of each key, and what has changed since is left alone.
"""

from collections.abc import Collection
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from django.contrib.admin.models import DELETION, LogEntry
from django.db.models import Q
from django.db.transaction import atomic
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from idempotency import database
from idempotency.models import IdempotencyKey

from .wording import state_label

Keys = Collection[IdempotencyKey]
State = IdempotencyKey.State

_CONSEQUENCES = {
    State.RUNNING: _("A request is running: the key will not be evicted."),
    State.COMPLETED: _(
        "%(operation)s was answered with %(code)s. If its client sends the request again, it runs "
        "a second time, and all that it does is done twice: a payment is taken twice."
    ),
    State.FAILED: _("No answer was kept. A retry would run in any case."),
    State.ABANDONED: _("No answer was kept. A retry would run in any case."),
    State.EXPIRED: _("The key has expired. A retry would run in any case."),
}


class Consequence(NamedTuple):
    """What it would mean to evict a key."""

    key: IdempotencyKey
    state: str
    sentence: str
    is_dangerous: bool
    """Whether something that was done may be done again."""
    version: str
    """See `version`."""

    @classmethod
    def of(cls, key: Any) -> "Consequence":
        """Tell it of a key that is annotated with ``state``."""
        sentence = str(_CONSEQUENCES[State(key.state)])
        sentence %= {"operation": key.operation, "code": key.status_code}
        is_dangerous = key.state == State.COMPLETED
        return cls(key, state_label(key), sentence, is_dangerous, version(key))


def version(key: IdempotencyKey) -> str:
    """Tell a row from what it may be later: an attempt, an answer or a new life changes it."""
    return f"{key.pk} {key.created_at.isoformat()} {key.attempts} {key.status}"


class Evicted(NamedTuple):
    """What became of the keys that were to be evicted."""

    evicted: Keys
    running: Keys
    changed: Keys
    """Something has happened to them since the question was asked."""


def evict(keys: Keys, seen: Collection[str], user: Any) -> Evicted:
    """Evict those keys that are still as they were shown, and write it into the admin's history.

    Args:
        seen: The versions that were shown.
        user: Who has said yes.
    """
    unchanged = [key for key in keys if version(key) in seen]
    with atomic(using=database.alias()):
        evicted = IdempotencyKey.objects.filter(_any_of(unchanged)).evict()
        for key in evicted:
            _log(key, user)
    gone = {key.pk for key in evicted}
    running = [key for key in unchanged if key.pk not in gone]
    return Evicted(evicted, running, [key for key in keys if key not in unchanged])


def evicted(keys: Keys) -> str:
    """Say which keys were evicted."""
    sentence = ngettext("Evicted:", "%(count)d keys were evicted:", len(keys))
    return _list(sentence % {"count": len(keys)}, keys)


def running(keys: Keys) -> str:
    """Say which were not, because a request is running."""
    return _list(gettext("Not evicted, because a request is running:"), keys)


def changed(keys: Keys) -> str:
    """Say which were not, because they are not any more what was asked about."""
    return _list(gettext("Not evicted, because something has happened since you looked:"), keys)


def _list(sentence: str, keys: Keys) -> str:
    return f"{sentence} {', '.join(map(str, keys))}"


def _log(key: IdempotencyKey, user: Any) -> None:
    LogEntry.objects.log_actions(
        user_id=user.pk,
        queryset=[key],
        action_flag=DELETION,
        change_message=f"Evicted the key {key.key} of the scope {key.scope}.",
        single_object=True,
    )


def _any_of(keys: Keys) -> Q:
    """Ask for rows as they were read."""
    rows = (
        Q(pk=key.pk, created_at=key.created_at, attempts=key.attempts, status=key.status)
        for key in keys
    )
    return reduce(or_, rows, Q(pk__in=()))
