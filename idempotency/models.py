"""The row: one idempotency key of one caller, and the answer it stands for; and its verbs."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.db import models, router
from django.db.models import Case, ExpressionWrapper, F, Q, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.db.transaction import atomic
from django.utils.translation import gettext_lazy as _

from . import digests, purges, statements
from .records import OutcomeCount, Purge

__all__ = ["IdempotencyKey", "IdempotencyKeyQuerySet", "OutcomeCount", "Purge"]

_IS_RUNNING = RawSQL(
    "idempotency_key.xmax = ANY (ARRAY("
    "SELECT transactionid FROM pg_locks WHERE locktype = 'transactionid' AND granted))",
    (),
    output_field=models.BooleanField(),
)
"""Whether the transaction that locked the row last is going on. The locks are read once a query."""


class IdempotencyKeyQuerySet(models.QuerySet["IdempotencyKey"]):
    """The verbs on many keys."""

    _db: str | None  # what using() was called with

    def primary(self) -> Self:
        """Read from the database that writes: it alone has the locks, and is never behind."""
        return self.using(self._database())

    def expired(self) -> Self:
        """Keys past their time by the database's clock: the protocol treats them as never seen."""
        return self.filter(expires_at__lte=Now())

    def with_key(self, key: str) -> Self:
        """Keep the rows with a key, whatever their scope; the primary key finds them."""
        return self.filter(id__range=digests.span(key), key=key)

    def with_error(self) -> Self:
        """Keys with an attempt that ended with an error; a later one may have been answered."""
        return self.filter(~Q(last_error=""))

    def with_running(self) -> Self:
        """Annotate ``is_running``: whether somebody holds the row's lock now.

        It reads who locked the row last, and whether that transaction is going on. Trying the
        lock itself would tell as much, but turn away a request that came just then.
        """
        return self.annotate(is_running=_IS_RUNNING)

    def with_state(self) -> Self:
        """Annotate ``state``, see `IdempotencyKey.State`."""
        state = self.model.State
        return self.annotate(
            state=Case(
                When(_IS_RUNNING, then=Value(state.RUNNING)),
                When(expires_at__lte=Now(), then=Value(state.EXPIRED)),
                When(status=self.model.Status.COMPLETED, then=Value(state.COMPLETED)),
                When(~Q(last_error=""), then=Value(state.FAILED)),
                default=Value(state.ABANDONED),
            )
        )

    def newest(self, count: int) -> Self:
        """Keep as many keys, those that expire last, and more only where several expire at once."""
        boundary = self.expiry_of_newest(count)
        return self if boundary is None else self.filter(expires_at__gte=boundary)

    def expiry_of_newest(self, count: int) -> datetime | None:
        """Tell when the last of as many keys expires; None where there are fewer."""
        expiries = self.order_by("-expires_at").values_list("expires_at", flat=True)
        return expiries[count - 1 : count].first()

    def evict(self) -> "list[IdempotencyKey]":
        """Delete keys before their time, except those that somebody holds; give the deleted.

        Never waits. The next request with such a key runs, whatever was done for it before.
        """
        keys = self.primary()
        with atomic(keys.db):
            free = list(keys.defer("headers", "body").select_for_update(skip_locked=True))
            self.model.objects.using(keys.db).filter(pk__in=[key.pk for key in free]).delete()
        return free

    def find(self, scope: str, key: str, users: str | None = None) -> "IdempotencyKey | None":
        """Return the key, from the database that writes, or None if it is not there.

        It has ``is_running``; and ``is_own``, whether the table of keys lies in the schema of the
        table ``users``.
        """
        is_own = RawSQL(statements.IS_OWN, (users,), output_field=models.BooleanField())  # noqa: S611
        row = self.primary().filter(pk=digests.digest(scope, key), expires_at__gt=Now())
        row = row.annotate(is_own=is_own)  # type: ignore[no-redef]
        return row.with_running().defer("headers", "body").first()

    def purge(
        self,
        *,
        batch_size: int = purges.BATCH_SIZE,
        pause: float = purges.PAUSE,
        max_rows: int | None = None,
        max_seconds: float | None = None,
        on_batch: Callable[[int], object] | None = None,
    ) -> purges.Purged:
        """Delete expired keys in batches, until none is left or a budget is spent.

        It never takes a row that a running request holds, and waits for nobody; any number may
        run at once, and share the work. What each batch deleted is committed with it, and stays
        deleted however the purge ends. A `Purge` keeps the record.

        Args:
            batch_size: Most rows to delete in one transaction.
            pause: Seconds between two batches, in which live requests have the database to
                themselves; 0 for a purge in a hurry.
            max_rows: Most rows to delete in all.
            max_seconds: How long to go on. The batch that is under way then is ended first.
            on_batch: Called after each batch with the number of rows deleted so far. A true
                answer ends the purge.

        Raises:
            RuntimeError: The caller has opened a transaction already, or switched autocommit off.
            TypeError: The queryset has been narrowed: a purge is of all that has expired.
        """
        if self.query.has_filters() or self.query.is_sliced:
            raise TypeError("A purge is of all expired keys: call it on objects, unfiltered.")
        purged = purges.purge(
            self._database(),
            batch_size=batch_size,
            pause=pause,
            max_rows=max_rows,
            max_seconds=max_seconds,
            on_batch=on_batch,
        )
        OutcomeCount.objects.using(self._database()).trim()
        return purged

    def purge_lag(self) -> timedelta:
        """Tell how long the oldest expired key has been waiting for the purge; zero if none is.

        More than `purges.OVERDUE` means that the purge does not run, or does not keep up.
        """
        waiting = ExpressionWrapper(Now() - F("expires_at"), models.DurationField())
        expired = self.primary().expired().order_by("expires_at")
        return expired.values_list(waiting, flat=True).first() or timedelta(0)

    def _database(self) -> str:
        """Give the alias that was asked for, or the one that writes go to."""
        return self._db or router.db_for_write(self.model)


class IdempotencyKey(models.Model):
    """An idempotency key, unique per scope.

    Note [The primary key is the unique constraint]
    (scope, key) must be unique. The primary key is a digest of both, and a CHECK holds it to that,
    so one index of 16-byte values does the work of two, one of them of text. Its first bytes depend
    on the key alone, so that it also does the work of a third, and finds a key whose scope is not
    known. It leaves the door open to databases that are distributed by the primary key.
    ``docs/storage.md`` has the figures.
    """

    class Status(models.TextChoices):
        """What a committed row says. Whether somebody is at it *now*, only its lock says."""

        IN_PROGRESS = "in_progress", _("in progress")
        """Somebody tried, and no answer was committed."""
        COMPLETED = "completed", _("completed")
        """The answer was committed together with its effects."""

    class State(models.TextChoices):
        """How a key stands at this moment: what its row says, its lock and the clock together."""

        RUNNING = "running", _("running now")
        """Somebody holds the row."""
        EXPIRED = "expired", _("expired")
        """It counts as never seen."""
        COMPLETED = "completed", _("completed")
        """Retries get the answer."""
        FAILED = "failed", _("failed")
        """The latest attempt ended with an error that was recorded. A retry runs."""
        ABANDONED = "abandoned", _("abandoned")
        """In progress, but nobody holds it: the worker died, or is between its claim and its lock.
        A retry runs."""

    # Fixed-width columns come first: PostgreSQL then needs no padding between them.
    id = digests.DigestField(_("id"), primary_key=True, editable=False)
    """See `digests.digest`."""

    created_at = models.DateTimeField(_("created"), db_default=Now())
    """When the key was first seen, or seen again after it had expired."""

    expires_at = models.DateTimeField(_("expires"))
    """From then on the key counts as never seen, whether or not the row was purged."""

    completed_at = models.DateTimeField(_("completed"), null=True, blank=True)
    """When the answer was saved."""

    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    """How often somebody set out to run the view: the first counts with its claim, even where its
    worker died or another was faster to the lock; later ones count when they end."""

    status_code = models.PositiveSmallIntegerField(_("status code"), null=True, blank=True)
    """HTTP status of the answer."""

    status = models.CharField(
        _("status"), max_length=11, choices=Status, default=Status.IN_PROGRESS
    )

    scope = models.CharField(_("scope"), max_length=255)
    """Whose key it is: the part of the draft's "composite key" that only the server knows."""

    key = models.CharField(_("key"), max_length=255)
    """The idempotency key as the client means it: without quotes and escapes."""

    operation = models.CharField(_("operation"), max_length=255)
    """Method and route, for people to read; the fingerprint has the exact path."""

    fingerprint = models.BinaryField(_("fingerprint"), max_length=33)
    """Version byte and HMAC-SHA-256 of the request that came with the key first."""

    last_error = models.CharField(_("last error"), max_length=255, blank=True, default="")
    """Class of the exception that ended the latest failed attempt."""

    headers = models.JSONField(_("headers"), null=True, blank=True)
    """The answer's headers: a list of [name, value], in order."""

    body = models.BinaryField(_("body"), null=True, blank=True)
    """The answer's bytes; NULL in a completed row where they were not kept."""

    trace = models.BinaryField(_("trace"), max_length=24, db_default=b"", editable=False)
    """Trace and span id of the request that was answered; empty where nobody traced it. Not NULL:
    the only NULL of a completed row would cost it 8 bytes, an empty value costs it one."""

    is_running: bool
    """Annotated by `IdempotencyKeyQuerySet.with_running`."""

    is_own: bool
    """Annotated by `IdempotencyKeyQuerySet.find`."""

    state: str
    """Annotated by `IdempotencyKeyQuerySet.with_state`."""

    objects = models.Manager.from_queryset(IdempotencyKeyQuerySet)()

    class Meta:
        db_table = "idempotency_key"
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")
        permissions: ClassVar[list[tuple[str, Any]]] = [("view_answer", "Can view stored answers")]
        indexes: ClassVar[list[models.Index]] = [
            # For the purge and the newest first; and for a caller's keys. A request writes both.
            models.Index(fields=["expires_at"], name="idempotency_key_expires_at"),
            models.Index(fields=["scope"], name="idempotency_key_scope"),
            # For the admin. Neither a claim nor its answer ever writes to it.
            models.Index(
                fields=["expires_at"], name="idempotency_key_failed", condition=~Q(last_error="")
            ),
        ]
        # What must never be, whoever writes: the claim's SQL, the ORM or a person at a prompt.
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                name="idempotency_key_id_is_digest", condition=Q(id=digests.COMPUTED)
            ),
            models.CheckConstraint(
                name="idempotency_key_names",
                condition=~Q(scope="") & Q(key__regex=r"^[ -~]+$"),
            ),
            models.CheckConstraint(
                name="idempotency_key_counts",
                condition=Q(attempts__gte=1) & Q(expires_at__gt=F("created_at")),
            ),
            models.CheckConstraint(
                name="idempotency_key_answer",
                condition=Q(
                    status="in_progress",
                    completed_at__isnull=True,
                    status_code__isnull=True,
                    headers__isnull=True,
                    body__isnull=True,
                    trace=b"",
                )
                | Q(
                    status="completed",
                    completed_at__isnull=False,
                    status_code__isnull=False,  # a CHECK lets NULL pass
                    status_code__range=(100, 599),
                    headers__isnull=False,
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} of {self.scope}"
