"""Bounds how long a session of the shop's role can hold locks for a worker that is gone.

A role's own settings work wherever it comes from: directly, from a pool, or through PgBouncer, which
would refuse them as options of the connection. docs/production.md says what each is for.
"""

from typing import ClassVar

from django.db import migrations

ALTER_ROLE = """
    DO $$ BEGIN
        EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I {}', current_database());
    END $$
"""
SETTINGS = {"client_connection_check_interval": "1s", "idle_in_transaction_session_timeout": "60s"}


class Migration(migrations.Migration):
    """They hold for the sessions that begin after it."""

    dependencies: ClassVar = [("shop", "0001_initial")]

    operations: ClassVar = [
        migrations.RunSQL(
            ALTER_ROLE.format(f"SET {name} = ''{value}''"), ALTER_ROLE.format(f"RESET {name}")
        )
        for name, value in SETTINGS.items()
    ]
