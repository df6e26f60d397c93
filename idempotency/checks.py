"""Start-up checks: what ``manage.py check`` says before a request could go wrong."""

from typing import Any

from django.core.checks import CheckMessage, Error
from django.db import connections, router

from . import conf
from .models import IdempotencyKey


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
