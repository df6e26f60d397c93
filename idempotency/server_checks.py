"""Start-up checks of the PostgreSQL server: ``manage.py check --database default``.

They ask a session that the project gets, which is the truth however it came about: by the server's
configuration, ALTER ROLE, the OPTIONS of DATABASES or a connection pooler.
"""

from collections.abc import Collection
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's name for it
from django.db import connections

from . import claims

_SESSION = """
    SELECT name, setting, format('%%I IN DATABASE %%I', current_user, current_database())
      FROM pg_settings WHERE name = ANY(%s)
"""
_READ_ONLY = "transaction_read_only"
_IDLE = "idle_in_transaction_session_timeout"
_CHECK = "client_connection_check_interval"
_STATEMENT = "statement_timeout"
_TRANSACTION = "transaction_timeout"
"""Of PostgreSQL 17 and newer."""


def check_server(*, databases: Collection[str] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Say what of the keys' server would fail or hurt, where it is one of ``databases``."""
    alias = claims.database()
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
