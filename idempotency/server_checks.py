"""Start-up checks of the server and the purge: ``manage.py check --database default``.

Those of the server ask a session that the project gets, which is the truth however it came about:
by the server's configuration, ALTER ROLE, the OPTIONS of DATABASES or a connection pooler.
"""

from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's name for it
from django.db import connections, router
from django.db.models import Model
from django.db.models.functions import Now

from . import conf, database, tenants
from .checks import keys_are_shared
from .models import IdempotencyKey, Purge
from .purges import OVERDUE, TASK

_SESSION = """
    SELECT name, setting, format('%%I IN DATABASE %%I', current_user, current_database())
      FROM pg_settings WHERE name = ANY(%s)
"""
_SCHEMAS = """
    SELECT nspname, bool_or(relname = 'idempotency_key')
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE relname IN (%s, 'django_migrations', 'idempotency_key')
       AND relkind IN ('r', 'p') AND nspname !~ '^pg_'
       AND has_schema_privilege(nspname, 'USAGE') AND has_table_privilege(pg_class.oid, 'SELECT')
     GROUP BY nspname
    HAVING count(*) FILTER (WHERE relname <> 'idempotency_key') = 2
"""
_READ_ONLY = "transaction_read_only"
_IDLE = "idle_in_transaction_session_timeout"
_CHECK = "client_connection_check_interval"
_STATEMENT = "statement_timeout"
_TRANSACTION = "transaction_timeout"
"""Of PostgreSQL 17 and newer."""


def check_server(*, databases: Collection[str] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Say what of the keys' server would fail or hurt, where it is one of ``databases``."""
    alias = database.alias()
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    with connections[alias].cursor() as cursor:
        cursor.execute(_SESSION, ([_READ_ONLY, _IDLE, _CHECK, _STATEMENT, _TRANSACTION],))
        rows = cursor.fetchall()
    role = rows[0][2]
    bounded = {name for name, setting, _role in rows if setting not in {"0", "off"}}
    found: list[CheckMessage] = []
    if _READ_ONLY in bounded:
        found.append(_read_only(alias))
    if not bounded & {_IDLE, _TRANSACTION}:
        found.append(_unbounded_pause(role))
    if not bounded & {_CHECK, _STATEMENT, _TRANSACTION}:
        found.append(_unbounded_statement(role))
    return found


def _read_only(alias: str) -> CheckMessage:
    return Error(
        f"The database {alias!r} takes no writes: it is a standby, or default_transaction_read_only"
        " is on. Every request with an idempotency key would be answered 503.",
        hint="Let the router write the app 'idempotency' to the primary, or reset "
        "default_transaction_read_only for this role.",
        id="idempotency.E008",
    )


def _unbounded_pause(role: str) -> CheckMessage:
    return Warning(
        "A worker that hangs in the middle of a request, or whose host is lost, holds its "
        f"idempotency key and all that it has locked for hours or for ever: {_IDLE} is 0.",
        hint="Bound it by more than the longest pause a view makes between two statements: "
        f"ALTER ROLE {role} SET {_IDLE} = '60s'; then connect anew. See docs/production.md.",
        id="idempotency.W006",
    )


def _unbounded_statement(role: str) -> CheckMessage:
    return Warning(
        "A statement whose worker was killed runs on to its end, and holds the idempotency key and "
        f"all that its transaction has locked until then: {_CHECK} is 0, and so is {_STATEMENT}.",
        hint=f"Let PostgreSQL look whether the worker is there: ALTER ROLE {role} SET {_CHECK} = "
        f"'1s'; then connect anew. Where the server cannot, set {_STATEMENT}. "
        "See docs/production.md.",
        id="idempotency.W007",
    )


def check_schemas(*, databases: Collection[str] | None, **_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E009``: schemas that have users of their own share a table of keys.

    It is seen in the catalogue, whatever sets the search path. Only schemas count where Django has
    migrated apps of this project, and no others: neither a copy of a table is a tenant nor another
    project.
    """
    alias, users = database.alias(), tenants.user_model()
    if users is None or conf.tenant() or not _is_migrated(alias, databases or (), IdempotencyKey):
        return []
    with connections[alias].cursor() as cursor:
        cursor.execute(_SCHEMAS, [users._meta.db_table])  # noqa: SLF001  # documented by Django
        rows = [row for row in cursor.fetchall() if _is_of_this_project(cursor, row[0])]
    with_keys = [schema for schema, has_keys in rows if has_keys]
    without = sorted(schema for schema, has_keys in rows if not has_keys)
    if not tenants.is_split([*with_keys, *without], with_keys):
        return []
    return [keys_are_shared(f"The schemas {', '.join(without[:3])} have users, and no own keys")]


def _is_of_this_project(cursor: Any, schema: str) -> bool:
    name = cursor.db.ops.quote_name(schema)
    cursor.execute(f"SELECT DISTINCT app FROM {name}.django_migrations")  # noqa: S608  # quoted
    return {app for (app,) in cursor.fetchall()} <= set(apps.app_configs)


def check_purge(databases: Collection[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.W010``, ``idempotency.W011``: expired keys pile up, or are going to.

    They look into the database, so only ``check --database`` and ``migrate`` ask for them.
    """
    alias = database.alias()
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
