"""What is written beside the keys: how many requests ended how, and what the purges did."""

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .signals import Outcome


class OutcomeCountQuerySet(models.QuerySet["OutcomeCount"]):
    """The verb on counts."""

    def trim(self) -> int:
        """Delete the counts that no picture shows any more, and tell how many there were."""
        deleted, _by_model = self.filter(hour__lt=Now() - OutcomeCount.KEPT).delete()
        return deleted


class OutcomeCount(models.Model):
    """How many covered requests ended with one outcome in one hour, about; see `tally`."""

    KEPT = timedelta(days=30)

    pk = models.CompositePrimaryKey("hour", "outcome")

    hour = models.DateTimeField(_("hour"))
    """The hour's beginning, by the clocks of the processes that counted."""

    count = models.PositiveBigIntegerField(_("count"))

    outcome = models.CharField(_("outcome"), max_length=20, choices=Outcome)

    objects = models.Manager.from_queryset(OutcomeCountQuerySet)()

    class Meta:
        db_table = "idempotency_outcome"
        verbose_name = _("outcome count")
        verbose_name_plural = _("outcome counts")

    def __str__(self) -> str:
        return f"{self.count} {self.outcome} in the hour from {self.hour:%Y-%m-%d %H:%M}"


class Purge(models.Model):
    """The record of one purge. Its own statements write it, and remove the oldest records."""

    started_at = models.DateTimeField(_("started"), db_default=Now())

    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    """NULL while it runs, and for ever if it was killed or lost its connection."""

    rows = models.PositiveBigIntegerField(_("rows"), db_default=0)
    """How many expired keys it deleted: committed with each batch, so true at any time."""

    is_complete = models.BooleanField(_("complete"), db_default=False)
    """Whether no expired key was left at its end."""

    class Meta:
        db_table = "idempotency_purge"
        verbose_name = _("purge")
        verbose_name_plural = _("purges")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                name="idempotency_purge_complete",
                condition=Q(is_complete=False) | Q(ended_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"purge of {self.started_at}"
