"""Tenants whose users share primary keys never read each other's responses."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import DOORS, Door, MakeDoor
from django.contrib.auth.models import Group, User
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections, router
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, TestCase

from idempotency import tenants
from idempotency.checks import check_tenants
from idempotency.exceptions import UnscopedCaller
from idempotency.models import IdempotencyKey
from idempotency.server_checks import check_schemas
from testproject.shop.models import Account

SCHEMAS = ("acme", "globex")


@pytest.fixture
def schemas(committed: None) -> Iterator[None]:
    """Create a schema for each of two tenants, with users and migrations of its own."""
    with connection.cursor() as cursor:
        for schema in SCHEMAS:
            cursor.execute(
                f"CREATE SCHEMA {schema};"
                f"CREATE TABLE {schema}.django_migrations (LIKE public.django_migrations);"
                f"INSERT INTO {schema}.django_migrations SELECT * FROM public.django_migrations;"
                f"CREATE TABLE {schema}.auth_user (LIKE public.auth_user INCLUDING ALL)"
            )
        yield
        cursor.execute(f"SET search_path TO DEFAULT; DROP SCHEMA {', '.join(SCHEMAS)} CASCADE")


def own_keys(*names: str) -> None:
    """Create the table of keys in schemas, as a migration does there."""
    with connection.cursor() as cursor:
        for schema in names:
            cursor.execute(
                f"CREATE TABLE {schema}.idempotency_key (LIKE public.idempotency_key INCLUDING ALL)"
            )


def work_in(schema: str) -> None:
    """Do what a middleware of the project does for a request of a tenant."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {schema}, public")


RAN: list[str] = []


def note(request: HttpRequest) -> HttpResponse:
    """Return what tells one run from all others."""
    RAN.append(uuid.uuid4().hex)
    return HttpResponse(RAN[-1], status=201)


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Forget the runs of other tests."""
    RAN.clear()


def the_first_user(_request: HttpRequest) -> str:
    """Return the scope of a user whose primary key another tenant's user has, too."""
    return "user:1"


def test_fault_n_a_table_that_several_schemas_share_is_refused(
    make_any_door: MakeDoor, schemas: None
) -> None:
    """Whatever has set the search path: nothing runs, and nothing is stored."""
    door = make_any_door(note, scope=the_first_user)

    for schema in SCHEMAS:
        work_in(schema)
        assert door().status_code == 500

    assert RAN == []
    assert not IdempotencyKey.objects.exists()
    work_in("public")
    assert door().status_code == 201


def test_fault_n_the_error_says_what_to_do(make_function_door: MakeDoor, schemas: None) -> None:
    """It is an error of the project's configuration."""
    door = make_function_door(note, scope=the_first_user)
    work_in("acme")

    with pytest.raises(ImproperlyConfigured, match=r"Set IDEMPOTENCY\['TENANT'\]"):
        Client().post("/work/", headers=door.headers())


def test_fault_n_a_row_of_the_shared_schema_is_not_replayed_to_a_tenant(
    make_door: MakeDoor, schemas: None
) -> None:
    """Its callers have primary keys, too."""
    door = make_door(note, scope=the_first_user)
    assert door().status_code == 201

    work_in("acme")
    assert door().status_code == 500
    assert door({"other": "body"}).status_code == 500, "It would tell that there is such a key."
    assert len(RAN) == 1


@pytest.mark.parametrize("seen", [False, True])
def test_fault_n_in_a_test_case_too(
    make_function_door: MakeDoor, schemas: None, seen: bool
) -> None:
    """There the claim is sent by itself."""
    door = make_function_door(note, scope=the_first_user)
    if seen:
        door()
    work_in("acme")

    class Case(TestCase):
        def runTest(self) -> None:  # noqa: N802  # unittest's name
            with pytest.raises(ImproperlyConfigured):
                door.view(RequestFactory().post("/work/", headers=door.headers()))

    result = Case().run()
    assert result is not None
    assert result.wasSuccessful(), result


def tenant_of_path(_request: HttpRequest) -> str:
    """Return the tenant as a project's resolver does."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        return str(cursor.fetchone()[0])


def told(door: Any) -> dict[str, bytes]:
    """Send the same request for each tenant, twice; return what each was told."""
    found = {}
    for schema in SCHEMAS:
        work_in(schema)
        first, retry = door(), door()
        assert (first.status_code, retry.status_code) == (201, 201)
        assert first.content == retry.content
        found[schema] = first.content
    return found


def test_fault_n_a_tenant_that_the_project_names_keeps_callers_apart(
    make_door: MakeDoor, schemas: None, settings: Any
) -> None:
    """In the setting."""
    settings.IDEMPOTENCY = {"TENANT": f"{__name__}.tenant_of_path"}

    assert len({*told(make_door(note, scope=the_first_user)).values()}) == 2
    scopes = {*IdempotencyKey.objects.values_list("scope", flat=True)}
    assert scopes == {f"tenant:{schema}/user:1" for schema in SCHEMAS}


def test_fault_n_a_tenant_that_the_view_names_does_as_well(
    make_function_door: MakeDoor, schemas: None
) -> None:
    """In the argument."""
    door = make_function_door(note, scope=the_first_user, tenant=tenant_of_path)

    assert len({*told(door).values()}) == 2


def test_fault_n_tables_of_their_own_keep_callers_apart(make_door: MakeDoor, schemas: None) -> None:
    """Where each schema has its keys nothing needs a name."""
    own_keys(*SCHEMAS)

    assert len({*told(make_door(note, scope=the_first_user)).values()}) == 2
    work_in("public")
    assert not IdempotencyKey.objects.exists()


# Packages for tenants, which name the schema on the connection


def named(monkeypatch: pytest.MonkeyPatch, schema: str) -> None:
    """Do what ``connection.set_tenant()`` of django-tenants does."""
    monkeypatch.setattr(connections["default"], "schema_name", schema, raising=False)
    work_in(schema)


def test_fault_n_the_schema_of_the_connection_is_part_of_the_scope(
    make_any_door: MakeDoor, schemas: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a setting, as django-tenants has it: each tenant's request runs and is replayed."""
    door = make_any_door(note, scope=the_first_user)
    found = {}
    for schema in SCHEMAS:
        named(monkeypatch, schema)
        first, retry = door(), door()
        assert first.content == retry.content
        found[schema] = first.content

    assert len({*found.values()}) == len(RAN) == 2
    scopes = {*IdempotencyKey.objects.values_list("scope", flat=True)}
    assert scopes == {f"schema:{schema}/user:1" for schema in SCHEMAS}


def test_fault_n_a_tenant_within_a_schema_does_not_take_its_place(
    make_function_door: MakeDoor, schemas: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two schemas may have a team with the same primary key."""
    door = make_function_door(note, scope=the_first_user, tenant=lambda request: "team-1")
    for schema in SCHEMAS:
        named(monkeypatch, schema)
        assert door().status_code == 201

    assert len(RAN) == 2


def test_fault_n_the_status_of_a_key_is_told_to_its_tenant(
    alice: Account,
    serve: Callable[[Any], None],
    schemas: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the page would tell of other tenants' requests."""
    serve(DOORS["function"](note))
    door = Door(None)
    page = f"/idempotency/keys/{door.key}/"
    named(monkeypatch, "public")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE acme.shop_account (LIKE public.shop_account INCLUDING ALL)")
        for table in ("auth_user", "shop_account"):
            cursor.execute(f"INSERT INTO acme.{table} SELECT * FROM public.{table}")
    assert door().status_code == 201
    assert Client().get(page, headers=door.headers()).status_code == 200

    named(monkeypatch, "acme")
    assert Client().get(page, headers=door.headers()).status_code == 404
    monkeypatch.setattr(connections["default"], "schema_name", None)
    answer = Client(raise_request_exception=False).get(page, headers=door.headers())
    assert answer.status_code == 404, "No such key of this user's is in the shared table."
    IdempotencyKey.objects.all().delete()
    work_in("public")
    assert door().status_code == 201
    work_in("acme")
    answer = Client(raise_request_exception=False).get(page, headers=door.headers())
    assert answer.status_code == 500


def naming(name: str) -> Callable[[HttpRequest], str]:
    """Return a resolver."""
    return lambda _request: name


def test_fault_n_scopes_of_tenants_never_meet() -> None:
    """Whatever names schemas, databases and tenants have."""
    request = RequestFactory().post("/")
    found = set()
    cases = [("a", "b", "c"), ("a/tenant:b", None, "c"), ("a", "b/c", "c"), (None, "a", "c")]
    for schema, tenant, caller in cases:
        connection_ = connections["default"]
        connection_.schema_name = schema  # type: ignore[attr-defined]
        try:
            resolver = naming(tenant) if tenant else None
            found.add(tenants.scope(request, naming(caller), resolver).name)
        finally:
            del connection_.schema_name  # type: ignore[attr-defined]

    assert len(found) == len(cases)


def test_fault_n_a_scope_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut, it might be another caller's."""
    monkeypatch.setattr(connections["default"], "schema_name", "s" * 63, raising=False)

    with pytest.raises(UnscopedCaller):
        tenants.scope(RequestFactory().post("/"), lambda request: "c" * 200)


# Several databases


class ByTenant:
    """Writes users to the database of the tenant of the moment, and the keys to one."""

    alias = "default"

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """As a project's router does it."""
        return self.alias if model is User else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Migrate users to the database of each tenant, and the keys to one."""
        return db != "default" if app_label == "auth" else db == "default"


@pytest.fixture
def databases(alice: Account, settings: Any) -> Iterator[type[ByTenant]]:
    """Name a database for each of two tenants, which is the test database once more."""
    for alias in SCHEMAS:
        connections.settings[alias] = {**connection.settings_dict, "ATOMIC_REQUESTS": False}
    settings.DATABASE_ROUTERS = [f"{__name__}.ByTenant"]
    yield ByTenant
    ByTenant.alias = "default"
    for alias in SCHEMAS:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def test_fault_n_the_database_of_the_users_is_part_of_the_scope(
    make_any_door: MakeDoor, databases: type[ByTenant]
) -> None:
    """Where it is another than that of the keys."""
    door = make_any_door(note, scope=the_first_user)
    for alias in SCHEMAS:
        databases.alias = alias
        first, retry = door(), door()
        assert (first.status_code, first.content) == (201, retry.content)

    assert len(RAN) == 2
    scopes = {*IdempotencyKey.objects.values_list("scope", flat=True)}
    assert scopes == {f"database:{alias}/user:1" for alias in SCHEMAS}


def test_fault_n_replicas_are_no_tenants(alice: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is read from one replica or another is the same caller."""
    request = RequestFactory().post("/")
    found = set()
    for alias in ("default", "replica-1", "replica-2"):
        request.user = User.objects.get(username="alice")
        request.user._state.db = alias
        found.add(tenants.scope(request).name)

    assert found == {f"user:{alice.user.pk}"}
    assert router.db_for_write(User, instance=request.user) == "replica-2"


# The check


def said(*databases: str) -> list[CheckMessage]:
    """Return what the checks say of tenants."""
    found = checks.run_checks(databases=list(databases) or None)
    return [message for message in found if message.id == "idempotency.E009"]


AUTH, OURS = "django.contrib.auth", "idempotency"


@pytest.mark.parametrize(
    ("shared", "of_tenants", "is_wrong"),
    [
        ([AUTH, OURS], [AUTH], True),
        ([OURS], [AUTH], True),
        ([OURS], ["django.contrib.auth.apps.AuthConfig"], True),
        ([AUTH, OURS], ["shop"], False),
        ([AUTH], [AUTH, OURS], False),
        ([OURS, AUTH], [AUTH, "idempotency.apps.IdempotencyConfig"], False),
        ([], [], False),
    ],
)
def test_fault_n_shared_keys_of_django_tenants_are_an_error(
    settings: Any, shared: list[str], of_tenants: list[str], *, is_wrong: bool
) -> None:
    """Their scopes name the schema, but each tenant's admin shows all keys."""
    settings.SHARED_APPS, settings.TENANT_APPS = shared, of_tenants

    assert [it.level for it in said()] == [checks.ERROR] * is_wrong
    settings.IDEMPOTENCY = {"TENANT": f"{__name__}.tenant_of_path"}
    assert said() == []


@pytest.mark.parametrize("name", ["TENANT_TYPES", "TENANTS"])
def test_fault_n_several_kinds_of_tenants_are_looked_at(settings: Any, name: str) -> None:
    """Of django-tenants, and of django-pgschemas."""
    schemas = {"public": {"APPS": [OURS]}, "default": {"APPS": [AUTH]}}
    setattr(settings, name, schemas)
    assert len(said()) == 1

    schemas["default"]["APPS"] += [OURS]
    assert said() == []


def test_fault_n_the_shared_schema_may_have_another_name(settings: Any) -> None:
    """It is one schema, and no kind of tenant."""
    settings.TENANT_TYPES = {"all": {"APPS": [OURS, AUTH]}, "shop": {"APPS": ["shop"]}}
    settings.PUBLIC_SCHEMA_NAME = "all"
    assert said() == []


def test_fault_n_users_in_several_databases_are_an_error(databases: type[ByTenant]) -> None:
    """And their keys in one."""
    (message,) = said()
    assert "Users live in several schemas or databases, and their keys in one" in message.msg


def test_fault_n_a_router_that_needs_a_request_hides_nothing_else(
    databases: type[ByTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it cannot tell is not said."""

    def fail(*args: Any, **kwargs: Any) -> bool:
        raise LookupError("There is no request.")

    monkeypatch.setattr(databases, "allow_migrate", fail)
    assert said() == []


def test_fault_n_schemas_that_share_keys_are_found_in_the_catalogue(schemas: None) -> None:
    """Whatever sets the search path."""
    (message,) = said("default")
    assert "The schemas acme, globex have users" in message.msg

    own_keys("acme")
    (message,) = said("default")
    assert "The schemas globex have users" in message.msg

    own_keys("globex")
    assert said("default") == []


def test_fault_n_another_project_is_no_tenant(schemas: None) -> None:
    """It has apps that this one has not."""
    with connection.cursor() as cursor:
        for schema in SCHEMAS:
            cursor.execute(
                f"INSERT INTO {schema}.django_migrations VALUES (0, 'theirs', '0001', now())"
            )
    assert said("default") == []


@pytest.mark.parametrize("path", ["public, acme", "acme, public"])
def test_fault_n_the_order_of_the_schemas_does_not_matter(
    make_door: MakeDoor, schemas: None, path: str
) -> None:
    """What counts is whose users a request finds, beside whose keys."""
    door = make_door(note, scope=the_first_user)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE globex.auth_user; ALTER TABLE public.auth_user RENAME TO hidden")
        cursor.execute(f"SET search_path TO {path}")
        try:
            assert door().status_code == 500
        finally:
            cursor.execute("ALTER TABLE public.hidden RENAME TO auth_user")
    assert RAN == []


@pytest.mark.parametrize("path", ["empty, public", "pg_catalog, public", "pg_temp, public"])
def test_fault_n_a_project_without_tenants_may_have_other_schemas(
    make_function_door: MakeDoor, committed: None, path: str
) -> None:
    """Such as one for extensions, or one with the role's name: users and keys lie together."""
    door = make_function_door(note, scope=the_first_user)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA empty; SET search_path TO {path}")
        try:
            assert [door().status_code for _ in range(2)] == [201, 201]
        finally:
            cursor.execute("SET search_path TO DEFAULT; DROP SCHEMA empty")
    assert len(RAN) == 1


def test_fault_n_users_of_another_model_are_of_their_database(
    alice: Account, databases: type[ByTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their scope names the model, which the router may write elsewhere."""
    found = set()
    for alias in SCHEMAS:
        monkeypatch.setattr(
            databases,
            "db_for_write",
            lambda self, model, it=alias, **_: it if model is Group else None,
        )
        found.add(tenants.scope(RequestFactory().post("/"), lambda _: "auth.group:1").name)

    assert found == {f"database:{alias}/auth.group:1" for alias in SCHEMAS}


def test_fault_n_a_router_that_forbids_to_write_users_changes_nothing(
    alice: Account, databases: type[ByTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept by another service, all in one place."""

    def refuse(_self: Any, model: Any, **hints: Any) -> str | None:
        if model is User:
            raise RuntimeError
        return None

    monkeypatch.setattr(databases, "db_for_write", refuse)

    assert tenants.scope(RequestFactory().post("/"), the_first_user).name == "user:1"


def test_fault_n_a_second_database_without_users_is_no_tenant(
    databases: type[ByTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router sends the keys to one, and says nothing of users."""

    def allow(_self: Any, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "default" if app_label == "idempotency" else None

    monkeypatch.setattr(databases, "allow_migrate", allow)
    assert said() == []


def test_fault_n_a_copy_of_the_users_is_no_tenant(schemas: None, settings: Any) -> None:
    """Django has migrated nothing there."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE acme.django_migrations, globex.auth_user")
    assert said("default") == []


def test_fault_n_a_project_without_users_has_no_tenants(settings: Any, committed: None) -> None:
    """Callers may be partners by a token."""
    settings.AUTH_USER_MODEL = "shop.Nobody"

    assert check_tenants() == check_schemas(databases=["default"]) == []
    assert tenants.scope(RequestFactory().post("/"), the_first_user) == ("user:1", None)
