"""The ways to connect to PostgreSQL that the suite passes under: ``DATABASE_VARIANT`` names one.

Each is what it changes in ``DATABASES``. A new one goes into this table, and into tox.ini.
"""

from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from psycopg import IsolationLevel

PGBOUNCER: Final = "pgbouncer"
"""The one that needs PgBouncer running; what it changes is what Django documents for it."""

ISOLATED: Final = {"repeatable-read", "serializable", "serializable-server"}
"""Those where PostgreSQL may give up one of two requests, even of two that share no row, because it
locks what they have read in coarse grains. That one's client is told to send it again."""

_POOL: Final = {"pool": {"min_size": 2, "max_size": 20}}

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "closing": {"CONN_MAX_AGE": 0},
    "persistent": {"CONN_MAX_AGE": None},
    "health-checks": {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
    "pool": {"OPTIONS": _POOL},
    "repeatable-read": {"OPTIONS": {"isolation_level": IsolationLevel.REPEATABLE_READ}},
    "serializable": {"OPTIONS": {"isolation_level": IsolationLevel.SERIALIZABLE}},
    # As the server's default it holds for single statements, too, and so for the claim.
    "serializable-server": {
        "OPTIONS": {"options": "-c default_transaction_isolation=serializable"}
    },
    "server-side-binding": {"OPTIONS": {"server_side_binding": True}},
    PGBOUNCER: {"DISABLE_SERVER_SIDE_CURSORS": True, "OPTIONS": {"prepare_threshold": None}},
}


def changed(database: dict[str, Any], name: str, *, pooled: bool) -> dict[str, Any]:
    """Give an entry of ``DATABASES`` as a variant has it, with a pool in any case if ``pooled``.

    Raises:
        ImproperlyConfigured: There is no variant of that name.
    """
    if name not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ImproperlyConfigured(f"DATABASE_VARIANT is {name!r}, but must be one of: {known}.")
    variant = VARIANTS[name]
    options = database["OPTIONS"] | variant.get("OPTIONS", {}) | (_POOL if pooled else {})
    database = database | variant | {"OPTIONS": options}
    return database | ({"CONN_MAX_AGE": 0} if "pool" in options else {})  # as Django insists
