"""Start-up checks: what ``manage.py check`` says before a request could go wrong."""

from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's name
from django.db import connections, router
from django.db.models import Model
from django.db.models.functions import Now

from . import conf
from .models import IdempotencyKey, Purge
from .purges import OVERDUE, TASK


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E001``: a setting is unknown or cannot be right."""
    return [
        Error(sentence, hint="See docs/settings.md for what it takes.", id="idempotency.E001")
        for sentence in conf.problems()
    ]


def check_database(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E002``: the keys are not kept in PostgreSQL, or not through psycopg 3."""
    alias = router.db_for_write(IdempotencyKey)
    connection = connections[alias]
    driver = getattr(connection, "Database", None)
    if connection.vendor == "postgresql" and getattr(driver, "__name__", "") == "psycopg":
        return []
    return [
        Error(
            f"Idempotency keys need PostgreSQL and psycopg 3, but the database {alias!r} is "
            f"{connection.display_name} through {getattr(driver, '__name__', 'nothing')}.",
            hint="Let a database router send the app 'idempotency' to the PostgreSQL database "
            "that holds your business data.",
            id="idempotency.E002",
        )
    ]


def check_purge(databases: Collection[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.W010``, ``idempotency.W011``: expired keys pile up, or are going to.

    They look into the database, so only ``check --database`` and ``migrate`` ask for them.
    """
    alias = router.db_for_write(IdempotencyKey)
    if not databases or not _is_migrated(alias, databases, IdempotencyKey, Purge):
        return []
    lag = IdempotencyKey.objects.using(alias).purge_lag()
    if lag > OVERDUE:
        return [
            Warning(
                f"The oldest expired idempotency key has waited {lag.days} days for the purge: it "
                "does not run, or does not keep up. Nothing is wrong but the use of disk.",
                hint="Schedule it, see docs/purge.md.",
                id="idempotency.W010",
            )
        ]
    if not _is_purge_forgotten(databases, alias):
        return []
    return [
        Warning(
            "Celery's beat is in use, but does not know the purge of idempotency keys, and nothing "
            f"else has purged for {OVERDUE.days} days.",
            hint="Run `manage.py schedule_idempotency_purge`, or add idempotency.tasks."
            "purge_expired_keys to CELERY_BEAT_SCHEDULE, see docs/purge.md.",
            id="idempotency.W011",
        )
    ]


def _is_migrated(alias: str, databases: Collection[str], *models: type[Model]) -> bool:
    """Tell whether a database is to be checked, and has the tables: `migrate` checks first."""
    connection = connections[alias]
    if alias not in databases or connection.vendor != "postgresql":
        return False
    tables = {model._meta.db_table for model in models}  # noqa: SLF001  # documented all the same
    return tables <= set(connection.introspection.table_names())


def _is_purge_forgotten(databases: Collection[str], alias: str) -> bool:
    """Tell whether Celery's beat could purge and does not, and neither does anybody else."""
    known = {entry.get("task") for entry in conf.beat_schedule().values()}
    if apps.is_installed("django_celery_beat"):
        periodic_task = apps.get_model("django_celery_beat", "PeriodicTask")
        if not _is_migrated(router.db_for_write(periodic_task), databases, periodic_task):
            return False
        known |= set(periodic_task.objects.filter(enabled=True).values_list("task", flat=True))
    elif not known:
        return False  # whoever does without beat has cron, or learns of it from W010
    since = Now() - OVERDUE
    return (
        TASK not in known
        and IdempotencyKey.objects.using(alias).exists()  # not so in a fresh test database
        and not Purge.objects.using(alias).filter(started_at__gt=since).exists()
    )
