"""Every look at the table goes through an index, at a size where PostgreSQL has the choice."""

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from benchmarks.rows import Rows
from idempotency import claims
from idempotency.answers import Answer
from idempotency.digests import digest
from idempotency.models import IdempotencyKey, IdempotencyKeyQuerySet


@pytest.fixture
def rows(committed: None) -> Rows:
    """So many keys that PostgreSQL prefers an index where there is one; a fifth has expired."""
    rows = Rows(count=20_000, seed=1, now=timezone.now())
    rows.fill()
    return rows


def nodes(plan: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Give a plan's nodes, from the top down."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes(keys: IdempotencyKeyQuerySet) -> set[str]:
    """Give the indexes that a query uses; it must not read the whole table."""
    sql, values = keys.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", values)
        [([plan],)] = cursor.fetchall()
    found = list(nodes(plan["Plan"]))
    assert "Seq Scan" not in {node["Node Type"] for node in found}, json.dumps(plan)
    return {node["Index Name"] for node in found if "Index Name" in node}


@pytest.mark.usefixtures("rows")
def test_the_purge_finds_the_expired_through_an_index() -> None:
    """The oldest first, without sorting them."""
    expired = IdempotencyKey.objects.expired().order_by("expires_at")

    assert indexes(expired[:1000]) == {"idempotency_key_expires_at"}


@pytest.mark.usefixtures("rows")
def test_the_newest_come_through_the_same_index() -> None:
    """A list of them needs no index of its own."""
    newest = IdempotencyKey.objects.order_by("-expires_at")

    assert indexes(newest[:100]) == {"idempotency_key_expires_at"}


def test_a_key_is_found_whatever_its_scope(rows: Rows) -> None:
    """By the primary key, whose first bytes depend on the key alone."""
    _, key = rows.names(4711)
    found = IdempotencyKey.objects.with_key(key)

    assert indexes(found.order_by("-expires_at")[:100]) == {"idempotency_key_pkey"}
    assert found.count() == 1


def test_the_keys_of_a_scope_come_through_an_index(rows: Rows) -> None:
    """All of them, and nobody else's."""
    scope, _ = rows.names(4711)
    found = IdempotencyKey.objects.filter(scope=scope)

    assert indexes(found.order_by("-expires_at")[:100]) == {"idempotency_key_scope"}
    assert 1 < found.count() < 100


def test_a_key_of_a_scope_is_one_look_up(rows: Rows) -> None:
    """By the primary key, which is their digest."""
    scope, key = rows.names(4711)
    found = IdempotencyKey.objects.filter(pk=digest(scope, key))

    assert indexes(found) == {"idempotency_key_pkey"}
    assert found.get().key == key


@pytest.mark.django_db
def test_keys_are_found_in_all_scopes_and_no_others() -> None:
    """A scope is no part of what is asked for, and another key no part of the answer."""
    for scope, key in (("user:1", "k"), ("user:2", "k"), ("user:1", "other"), ("k", "user:1")):
        IdempotencyKey.objects.create(
            scope=scope,
            key=key,
            operation="POST work/",
            fingerprint=b"1" * 33,
            expires_at=timezone.now() + timedelta(hours=1),
        )

    found = IdempotencyKey.objects.with_key("k")

    assert sorted(found.values_list("scope", flat=True)) == ["user:1", "user:2"]


def updates() -> tuple[int, int]:
    """Give how many updates of the table there were, and how many that left its indexes alone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT pg_stat_get_tuples_updated(oid), pg_stat_get_tuples_hot_updated(oid)"
            " FROM pg_class WHERE oid = 'idempotency_key'::regclass"
        )
        [(updated, hot)] = cursor.fetchall()
        return updated, hot


@pytest.mark.usefixtures("committed")
def test_completing_a_key_leaves_the_indexes_alone() -> None:
    """What an answer changes is in none of them, so that its row can stay on its page."""
    claim = claims.Claim(
        scope="user:1",
        key="k",
        fingerprints=(b"1" * 33,),
        operation="POST work/",
        ttl=timedelta(hours=1),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE idempotency_key"
        )  # a page that other tests have filled has no room
    before = updates()
    with claims.attempt(claim) as attempt:
        assert isinstance(attempt, claims.Attempt)
        claims.complete(attempt, Answer(201, (("A", "b"),), b"{}"))

    assert updates() == (before[0] + 1, before[1] + 1)


@pytest.mark.django_db
def test_answers_are_compressed_with_lz4_where_the_server_has_it() -> None:
    """And with PostgreSQL's default elsewhere, without an error."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'lz4' = ANY(enumvals), attcompression FROM pg_settings, pg_attribute"
            " WHERE pg_settings.name = 'default_toast_compression' AND attname = 'body'"
            "   AND attrelid = 'idempotency_key'::regclass"
        )
        has_lz4, compression = cursor.fetchone()

    assert compression == ("l" if has_lz4 else "")


@pytest.mark.django_db
def test_autovacuum_comes_early() -> None:
    """So that new keys soon take the place of purged ones."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE oid = 'idempotency_key'::regclass")
        assert cursor.fetchone() == (["autovacuum_vacuum_scale_factor=0.05"],)


@pytest.mark.usefixtures("committed")
def test_the_storage_can_be_taken_back() -> None:
    """The migration goes both ways."""
    call_command("migrate", "idempotency", "0001", verbosity=0)
    call_command("migrate", "idempotency", verbosity=0)
