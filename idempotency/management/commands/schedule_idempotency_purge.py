"""The door of django-celery-beat: ``python manage.py schedule_idempotency_purge``."""

import argparse
import re
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser

from idempotency.purges import TASK

PERIODS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
"""django-celery-beat's names for the units."""

NAME = "Purge expired idempotency keys"
"""What the periodic task is called, until somebody changes it in the admin."""


class Command(BaseCommand):
    """Sees to it that there is one periodic task for the purge, however often it is called."""

    help = "Let django-celery-beat purge expired idempotency keys. It may be run at every deploy."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--every",
            type=_interval,
            metavar="INTERVAL",
            help="30s, 10m, 6h or 1d, for instance. Without it a new periodic task runs every 10m, "
            "and one that is there stays as it is.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Create the periodic task, or give it another interval."""
        if not apps.is_installed("django_celery_beat"):
            raise CommandError(
                "django-celery-beat is not installed. Install django-idempotency-pg[beat], add "
                "'django_celery_beat' to INSTALLED_APPS and migrate; or let cron run "
                "purge_idempotency_keys."
            )
        task = _scheduled(options["every"])
        note = "" if task.enabled else " It is disabled: enable it in the admin, or give --every."
        self.stdout.write(f"{task}.{note}")


def _scheduled(every: tuple[int, str] | None) -> Any:
    periodic_tasks = apps.get_model("django_celery_beat", "PeriodicTask").objects
    # By the task and not by the name, which may be changed in the admin.
    existing = list(periodic_tasks.filter(task=TASK))
    if len(existing) > 1:
        names = ", ".join(repr(task.name) for task in existing)
        raise CommandError(f"There are {len(existing)} already: {names}. Keep one in the admin.")
    if existing and every is None:
        return existing[0]
    number, period = every or (10, "minutes")
    # get_or_create would fail where the admin made two of the same, which nothing forbids.
    intervals = apps.get_model("django_celery_beat", "IntervalSchedule").objects
    interval = intervals.filter(every=number, period=period).first()
    task, _is_new = periodic_tasks.update_or_create(
        name=existing[0].name if existing else NAME,
        defaults={
            "task": TASK,
            "interval": interval or intervals.create(every=number, period=period),
            "crontab": None,
            "solar": None,
            "clocked": None,
            "enabled": True,
        },
    )
    return task


def _interval(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an interval: a whole number and one of s, m, h and d, as in 10m."
        )
    number, period = int(found[1]), PERIODS[found[2]]
    if timedelta(**{period: number}) > timedelta(days=1):
        raise argparse.ArgumentTypeError(f"{text!r} is too long: at most a day.")
    return number, period
