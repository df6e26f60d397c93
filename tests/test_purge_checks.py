"""What `manage.py check --database` says of the purge."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections
from django.db.models.functions import Now
from django_celery_beat.models import PeriodicTask
from support import put_expired

from idempotency.models import IdempotencyKey, Purge
from idempotency.purges import TASK


def purge_ids() -> list[str | None]:
    """Run the checks that may look into the database, and give the ids of those on the purge."""
    found = run_checks(databases=["default"])
    return [m.id for m in found if m.id in {"idempotency.W010", "idempotency.W011"}]


@pytest.fixture
def nothing_scheduled(db: None, settings: Any) -> Any:
    """Give settings where beat knows nothing of the purge."""
    settings.CELERY_BEAT_SCHEDULE = {"other": {"task": "other", "schedule": 60}}
    return settings


@pytest.mark.django_db
def test_an_overdue_purge_is_told() -> None:
    """By the oldest expired key, whatever the records say; only where the database may be asked."""
    put_expired("a", ago="47 hours")
    assert purge_ids() == []

    put_expired("b", ago="49 hours")
    IdempotencyKey.objects.purge(max_seconds=1e-9)
    assert purge_ids() == ["idempotency.W010"]
    assert not [m for m in run_checks() if m.id == "idempotency.W010"]

    IdempotencyKey.objects.purge()
    assert purge_ids() == []


@pytest.mark.usefixtures("nothing_scheduled")
def test_a_purge_that_nobody_scheduled_is_told() -> None:
    """Once there are keys, where beat is in use."""
    assert purge_ids() == []

    put_expired("a")
    assert purge_ids() == ["idempotency.W011"]


def test_a_purge_in_the_settings_is_scheduled(nothing_scheduled: Any) -> None:
    """Under any name."""
    put_expired("a")
    nothing_scheduled.CELERY_BEAT_SCHEDULE = {"x": {"task": TASK, "schedule": 60}}

    assert purge_ids() == []


@pytest.mark.usefixtures("nothing_scheduled")
def test_a_purge_in_the_database_is_scheduled() -> None:
    """If it is enabled."""
    put_expired("a")
    call_command("schedule_idempotency_purge", verbosity=0, stdout=StringIO())
    assert purge_ids() == []

    PeriodicTask.objects.update(enabled=False)
    assert purge_ids() == ["idempotency.W011"]


@pytest.mark.usefixtures("nothing_scheduled")
def test_whoever_purges_by_cron_is_left_alone() -> None:
    """The records tell that somebody does, until they are old."""
    put_expired("a")
    IdempotencyKey.objects.purge(max_seconds=1e-9)
    assert purge_ids() == []

    Purge.objects.update(started_at=Now() - timedelta(days=3))
    assert purge_ids() == ["idempotency.W011"]


def test_without_beat_nothing_is_missed(nothing_scheduled: Any) -> None:
    """Then the settings cannot know who purges; W010 will."""
    put_expired("a")
    apps = [name for name in nothing_scheduled.INSTALLED_APPS if name != "django_celery_beat"]
    nothing_scheduled.INSTALLED_APPS = apps
    assert purge_ids() == ["idempotency.W011"]

    del nothing_scheduled.CELERY_BEAT_SCHEDULE
    assert purge_ids() == []


@pytest.mark.usefixtures("db")
def test_another_database_than_postgresql_has_no_purge(monkeypatch: pytest.MonkeyPatch) -> None:
    """E002 says all there is to say."""
    put_expired("a", ago="3 days")
    monkeypatch.setattr(connections["default"], "vendor", "mysql")

    assert purge_ids() == []


@pytest.mark.parametrize("table", ["idempotency_key", "idempotency_purge"])
@pytest.mark.usefixtures("nothing_scheduled")
def test_before_the_first_migration_there_is_nothing_to_check(table: str) -> None:
    """`migrate` checks before it makes the tables."""
    put_expired("a", ago="3 days")
    with connections["default"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO gone")

    assert purge_ids() == []


@pytest.mark.usefixtures("nothing_scheduled")
def test_a_schedule_that_cannot_be_read_is_no_warning() -> None:
    """The tables of django-celery-beat are migrated later."""
    put_expired("a")
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER TABLE django_celery_beat_periodictask RENAME TO gone")

    assert purge_ids() == []
