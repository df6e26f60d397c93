"""Tenants: which callers share a table of keys, and what keeps them apart in it.

Users of two schemas, or of two databases, may have the same primary key. Where their keys lie in
one table, the scope has to name the schema or the database, too.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from django.apps import AppConfig, apps
from django.db import connections, router
from django.db.models import Model
from django.http import HttpRequest

from . import conf, database, http
from .models import IdempotencyKey


class Scope(NamedTuple):
    """Whose key it is."""

    name: str
    users: str | None
    """The table of users that must lie in the schema of the keys, for the name tells no tenant."""


def scope(
    request: HttpRequest, caller: conf.Resolver | None = None, tenant: conf.Resolver | None = None
) -> Scope:
    """Return whose key it is, as `http.scope` does, set apart from callers of other tenants.

    A schema is taken from the connection, whose attribute ``schema_name`` packages for tenants
    set (django-tenants, django-tenant-schemas). It is named even where a tenant is named already,
    which may be one of several that each schema has.

    Raises:
        UnscopedCaller: Nothing tells who is calling, or for which tenant.
    """
    tenant = tenant or conf.tenant()
    name = http.scope(request, caller, tenant)
    model, home = _model_of(name), database.alias()
    alias = _alias_of(model) if model else home
    schemas = [*_schemas(home, alias)]
    parts = [f"database:{quote(alias, safe='')}"] if alias != home else []
    parts += [f"schema:{quote(schema, safe='')}" for schema in schemas]
    is_named = tenant or schemas or alias != home
    users = _table_of(model) if model and not is_named else None
    return Scope(http.checked_scope("/".join([*parts, name])), users)


def user_model() -> type[Model] | None:
    """Return the project's model of users, None where it is not installed."""
    return _model(conf.of_project("AUTH_USER_MODEL", "auth.User"))


def _model_of(name: str) -> type[Model] | None:
    """Return the model of the user that a scope names, or that of the project's users."""
    kind = name.rpartition("/")[2].partition(":")[0]
    return _model(kind) or user_model()


def _model(label: str) -> type[Model] | None:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError):
        return None


def _alias_of(model: type[Model]) -> str:
    # Never the one that the user was read from: of several replicas each would be another caller.
    try:
        return router.db_for_write(model)
    except Exception:  # this router lets nothing write users
        return database.alias()


def _table_of(model: type[Model]) -> str | None:
    """Return a model's table as PostgreSQL looks it up; None where its name has a schema."""
    table = model._meta.db_table  # noqa: SLF001  # documented by Django
    return None if "." in table else f'"{table}"'


def _schemas(*aliases: str) -> Iterator[str]:
    for alias in dict.fromkeys(aliases):
        connection: Any = connections[alias]
        if schema := getattr(connection, "schema_name", None):
            yield str(schema)


def is_split(users: Collection[object], keys: Collection[object]) -> bool:
    """Whether users live in several places, of which some have no table of keys of their own."""
    return len(users) > 1 and not {*users} <= {*keys}


def databases_of(model: type[Model]) -> set[str]:
    """Return the aliases that a router says a model is migrated to; none where it cannot tell yet.

    That nothing forbids it says nothing: most projects have a database more, and no users there.
    """
    try:
        return {alias for alias in connections if _is_migrated_to(alias, model)}
    except Exception:  # this router decides by the request, and there is none
        return set()


def _is_migrated_to(alias: str, model: type[Model]) -> bool:
    options = model._meta  # noqa: SLF001  # documented by Django
    hints = {"model_name": options.model_name, "model": model}
    asked = (getattr(it, "allow_migrate", None) for it in router.routers)
    said = (ask(alias, options.app_label, **hints) for ask in asked if ask)
    return next((it for it in said if it is not None), False)


def kinds_of_schemas(model: type[Model]) -> set[str]:
    """Return the kinds of schemas that have a model, by the settings of the packages for tenants.

    They are those of django-tenants, one kind of tenant or several, and of django-pgschemas.
    """
    lists = {
        _public(): conf.of_project("SHARED_APPS", ()),
        "a tenant": conf.of_project("TENANT_APPS", ()),
    }
    for setting in ("TENANT_TYPES", "TENANTS"):
        schemas = conf.of_project(setting, {})
        lists |= {kind: it.get("APPS", ()) for kind, it in schemas.items()}
    config: AppConfig = model._meta.app_config  # noqa: SLF001  # documented by Django
    names = {config.name, f"{config.__module__}.{type(config).__qualname__}"}
    return {kind for kind, names_of in lists.items() if names & {*names_of}}


def are_keys_shared() -> bool:
    """Whether callers of several schemas or databases share keys, by all that settings tell."""
    users = user_model()
    if users is None:
        return False
    if is_split(databases_of(users), databases_of(IdempotencyKey)):
        return True
    schemas = kinds_of_schemas(users)
    # One kind of schema for tenants is as many schemas as there are tenants.
    return bool(schemas - {_public()} - kinds_of_schemas(IdempotencyKey))


def _public() -> str:
    """Return the name of the schema that all tenants share."""
    return str(conf.of_project("PUBLIC_SCHEMA_NAME", "public"))
