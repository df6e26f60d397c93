"""Start-up checks of settings: what ``manage.py check`` says before a request could go wrong.

Error says that covered requests would fail, or the promise would not hold. Warning says that it
holds, but that something hurts when a fault comes, or for what lies outside of it.
"""

from collections import defaultdict
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's name for it
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.utils.module_loading import import_string

from . import conf, database, tenants
from .options import Options

_COMES_BACK = 5.0
"""Seconds in which a client comes back that was told ``Retry-After: 1``, on a slow network, too."""


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E001``: a setting is unknown or cannot be right."""
    return [
        Error(sentence, hint="See docs/settings.md for what it takes.", id="idempotency.E001")
        for sentence in conf.problems()
    ]


def check_database(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E002``: the keys are not kept in PostgreSQL, or not through psycopg 3."""
    alias = database.alias()
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


def check_autocommit(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E003``: claims cannot be committed before the view runs."""
    alias = database.alias()
    if connections[alias].settings_dict["AUTOCOMMIT"]:
        return []
    return [
        Error(
            f"AUTOCOMMIT is off for the database {alias!r} that keeps the idempotency keys, so "
            "every request with a key would be refused with a RuntimeError.",
            hint=f"Remove 'AUTOCOMMIT': False from DATABASES[{alias!r}].",
            id="idempotency.E003",
        )
    ]


def check_expiry(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E004``: a key would expire while a retry waits for its first request."""
    return expires_too_soon("IDEMPOTENCY['TTL']", Options())


def expires_too_soon(what: str, options: Options) -> list[CheckMessage]:
    """Say so if a time to live is not longer than the longest wait, and no setting is wrong."""
    if any(conf.problems()):
        return []
    longest = max(conf.settings.MAX_WAIT, _COMES_BACK)
    if options.life().total_seconds() > longest:
        return []
    return [
        Error(
            f"{what} is not longer than the {longest} seconds that a retry may take to wait for "
            "its first request, or to come back after a 409 response. The retry would find its "
            "key expired, and run the view once more.",
            hint="Let keys live longer than any client retries: hours, better a day. Or lower "
            "IDEMPOTENCY['MAX_WAIT'].",
            id="idempotency.E004",
        )
    ]


def check_aliases(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.W001``: the router writes some models to other databases than the keys'."""
    home = database.alias()
    elsewhere = defaultdict(list)
    for model in apps.get_models():
        options = model._meta  # noqa: SLF001  # documented by Django
        if options.managed and not options.proxy:
            try:
                alias = router.db_for_write(model)
            except Exception:  # noqa: S112  # this router decides by the request, and there is none
                continue
            elsewhere[alias].append(options.label)
    return [
        Warning(
            f"Idempotency keys are kept in the database {home!r}, but these models are written to "
            f"{alias!r}: {_some(labels)}. What an idempotent view writes there is not committed "
            "together with its answer, and can happen twice, or once without an answer.",
            hint="Let the router send the app 'idempotency' to the database that the idempotent "
            "views write to. If none of them writes these models, add 'idempotency.W001' to "
            "SILENCED_SYSTEM_CHECKS.",
            id="idempotency.W001",
        )
        for alias, labels in elsewhere.items()
        if alias != home
    ]


def _some(labels: list[str], most: int = 5) -> str:
    rest = len(labels) - most
    return ", ".join(labels[:most]) + (f" and {rest} more" if rest > 0 else "")


def check_tenants(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E009``: callers of several tenants share one table of keys."""
    if conf.tenant() or not tenants.are_keys_shared():
        return []
    return [keys_are_shared("Users live in several schemas or databases, and their keys in one")]


def keys_are_shared(what: str) -> CheckMessage:
    """Return the error for tenants that share keys, which begins by saying how that was found."""
    return Error(
        f"{what}: users of two tenants may have the same primary key, so one tenant could be given "
        "the other's stored responses, and its admin shows them.",
        hint="Migrate the app 'idempotency' where the users are, with django-tenants by adding it "
        "to TENANT_APPS, so that each tenant has a table of its own. Or name the tenant in "
        "IDEMPOTENCY['TENANT'], and register the admin for the operators of the site only.",
        id="idempotency.E009",
    )


def check_mirror(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.W002``: keys are written to what is declared a mirror of another database."""
    alias = database.alias()
    mirrored = connections[alias].settings_dict["TEST"]["MIRROR"]
    if not mirrored:
        return []
    return [
        Warning(
            f"The router writes idempotency keys to {alias!r}, which is declared a mirror of "
            f"{mirrored!r}. A replica takes no claims: every request with a key would be answered "
            "503. A second connection to the same database does not share its transactions.",
            hint=f"Let db_for_write() of the router send the app 'idempotency' to {mirrored!r}.",
            id="idempotency.W002",
        )
    ]


def check_middleware(**_kwargs: Any) -> list[CheckMessage]:
    """``idempotency.E005`` and ``idempotency.W003``: middleware that is in a request's way."""
    found: list[CheckMessage] = []
    for path in conf.of_project("MIDDLEWARE", ()):
        if _is_atomic_revision(path):
            found.append(
                Error(
                    f"The middleware {path} wraps every request in a transaction, so that every "
                    "request with a key would be refused with a RuntimeError: its claim could not "
                    "be committed before the view runs.",
                    hint="Put a subclass with atomic = False in its place: the transaction of an "
                    "idempotent view holds its revision, too. Or remove it, and use "
                    "create_revision() inside the views.",
                    id="idempotency.E005",
                )
            )
        elif path == "corsheaders.middleware.CorsMiddleware" and not _is_allowed_across_origins():
            found.append(
                Warning(
                    "CORS_ALLOW_HEADERS does not name idempotency-key, so browsers refuse to send "
                    "a key to this server from pages of another origin.",
                    hint="CORS_ALLOW_HEADERS = (*corsheaders.defaults.default_headers, "
                    "'idempotency-key'); and CORS_EXPOSE_HEADERS = ('idempotent-replayed', "
                    "'retry-after') lets their scripts read the answer's.",
                    id="idempotency.W003",
                )
            )
    return found


def _is_atomic_revision(path: str) -> bool:
    """Tell whether it is django-reversion's middleware, as it comes, on the keys' database."""
    if not apps.is_installed("reversion"):
        return False
    revision: Any = import_string("reversion.middleware.RevisionMiddleware")
    middleware: Any = import_string(path)
    return bool(
        revision in getattr(middleware, "__mro__", ())
        and middleware.atomic
        and middleware.request_creates_revision is revision.request_creates_revision
        and (middleware.using or DEFAULT_DB_ALIAS) == database.alias()
    )


def _is_allowed_across_origins() -> bool:
    allowed = conf.of_project("CORS_ALLOW_HEADERS", ())
    return "idempotency-key" in {name.lower() for name in allowed}
