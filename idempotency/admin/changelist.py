"""The admin's list of keys: newest first, and never more work than a window of them takes.

Note [The window]
Most of what a list could be filtered by has no index, and must not have one: each would have to be
written with every request. So a list is made of the `WINDOW` newest keys, found through the index
on ``expires_at``, and filters look among those; the expired and the failed have windows of their
own, because there are indexes for them, and so have the keys that a search finds. Beneath each
window is a link to the one before it.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.forms import DateTimeField
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from idempotency.digests import digest
from idempotency.models import IdempotencyKey, IdempotencyKeyQuerySet

WINDOW = 10_000
"""Keys. A hundred pages, and some ten milliseconds to look through."""

BEFORE = "before"
"""The parameter that asks for a window of older keys: those that expire before that time."""

_MAX_OPERATIONS = 50
_SEPARATORS = " :"
_LONGEST = 511
"""Characters of the longest scope and key with a separator."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # not subscriptable at run time
    """Counts no further than the window goes."""

    @cached_property
    def count(self) -> int:
        """Number of keys in all pages."""
        keys: Any = self.object_list
        count: int = keys.order_by().values("pk")[:WINDOW].count()
        return count


class KeyChangeList(ChangeList):
    """A list within a window."""

    older: datetime | None = None
    """Keys that expire before this are in the next window; None if there is none."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Apply search and filters to a window."""
        # Django's own method begins from here.
        keys: Any = self.model_admin.get_queryset(request)
        self.root_queryset: Any = self._window(keys)
        return super().get_queryset(request, exclude_parameters)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Keep from Django's filters what is ours."""
        found = super().get_filters_params(params)
        found.pop(BEFORE, None)
        return found

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """Give the one order that has an index, whatever is asked for."""
        return ["-expires_at"]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page."""
        super().get_results(request)
        self.result_list: Any = settled(self.root_queryset, self.result_list)

    @property
    def is_front(self) -> bool:
        """Whether this is the first page of everything."""
        return not (self.query or self.before or self.get_filters_params() or self.page_num > 1)

    @property
    def older_url(self) -> str | None:
        """Address of the window before this one."""
        if self.older is None:
            return None
        return self.get_query_string({BEFORE: self.older.isoformat()})

    @cached_property
    def before(self) -> datetime | None:
        """Where the window was asked to begin; None if at the newest."""
        if BEFORE not in self.params:
            return None
        try:
            moment: datetime | None = DateTimeField().clean(self.params[BEFORE])
        except ValidationError as error:
            raise IncorrectLookupParameters from error
        return moment

    @property
    def newest_url(self) -> str:
        """Address of the first window."""
        return self.get_query_string(remove=[BEFORE])

    def _window(self, keys: IdempotencyKeyQuerySet) -> IdempotencyKeyQuerySet:
        """See Note [The window]."""
        if self.query:
            keys = search(keys, self.query)
        if self.before:
            keys = keys.filter(expires_at__lt=self.before)
        match self.params.get(StateFilter.parameter_name):
            case IdempotencyKey.State.EXPIRED:
                keys = keys.expired()
            case IdempotencyKey.State.FAILED:
                keys = keys.with_error()
        self.older = keys.expiry_of_newest(WINDOW)
        return keys if self.older is None else keys.filter(expires_at__gte=self.older)


class StateFilter(SimpleListFilter):
    """By `IdempotencyKey.State`."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[Any]:
        """Offer all states."""
        return IdempotencyKey.State.choices

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep one state."""
        return queryset.filter(state=self.value()) if self.value() else queryset


class StatusCodeFilter(SimpleListFilter):
    """By the first digit of the answer's status."""

    title = _("status code")
    parameter_name = "status_code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[Any]:
        """Offer the classes of RFC 9110 that an answer can have."""
        return [(digit, f"{digit}xx") for digit in "2345"]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep one class."""
        if self.value() not in {digit for digit, _name in self.lookup_choices}:
            return queryset
        first = int(self.value() or 0) * 100
        return queryset.filter(status_code__range=(first, first + 99))


class OperationFilter(SimpleListFilter):
    """By operation, of those in the newest window."""

    title = _("operation")
    parameter_name = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[Any]:
        """Offer what is in use."""
        newest = model_admin.get_queryset(request).newest(WINDOW)
        names = newest.order_by("operation").values_list("operation", flat=True).distinct()
        return [(name, name) for name in names[:_MAX_OPERATIONS]]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep one operation."""
        return queryset.filter(operation=self.value()) if self.value() else queryset


def search(keys: IdempotencyKeyQuerySet, text: str) -> IdempotencyKeyQuerySet:
    """Find keys by scope and key, by key, by id, or by scope; the first of these that finds any.

    Scope and key stand side by side, with a space or a colon between them. Either may contain
    both, so every place where the text can be divided is tried: each is one look into an index.
    """
    ids = {
        digest(text[:place], text[place + 1 :])
        for place, character in enumerate(text[:_LONGEST])
        if character in _SEPARATORS
    }
    with suppress(ValueError):
        ids.add(UUID(text))
    for found in (keys.filter(pk__in=ids), keys.with_key(text)):
        if found.exists():
            return found
    return keys.filter(scope=text)


def settled(keys: IdempotencyKeyQuerySet, page: Iterable[IdempotencyKey]) -> list[IdempotencyKey]:
    """Look again at the keys that seem abandoned.

    A row is read a moment before its lock, and a request may have ended between the two. The row
    then still seemed to be in progress, and the lock was gone already.
    """
    rows = list(page)
    waiting = (IdempotencyKey.State.ABANDONED, IdempotencyKey.State.FAILED)
    again = keys.in_bulk([row.pk for row in rows if row.state in waiting])
    return [again.get(row.pk, row) for row in rows]
