"""What `manage.py check` says before a request can go wrong."""

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connections


def ids() -> list[str | None]:
    """Run all checks and give the ids of ours."""
    return [m.id for m in run_checks() if m.id and m.id.startswith("idempotency.")]


def test_the_shop_is_configured_well() -> None:
    """Nothing to say."""
    assert ids() == []


def test_wrong_settings_are_errors(settings: Any) -> None:
    """One for each."""
    settings.IDEMPOTENCY = {"TTL": 1, "STRICT": 1, "UNKNOWN": 1}

    assert ids() == ["idempotency.E001"] * 3


@pytest.mark.parametrize(("attribute", "value"), [("vendor", "mysql"), ("Database", pytest)])
def test_another_database_is_an_error(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any
) -> None:
    """The promise is kept by PostgreSQL, through psycopg 3."""
    monkeypatch.setattr(connections["default"], attribute, value)

    (message,) = [m for m in run_checks() if m.id == "idempotency.E002"]
    assert "need PostgreSQL and psycopg 3" in message.msg
    assert message.hint
