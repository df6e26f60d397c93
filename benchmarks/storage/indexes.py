"""Bytes of the table and of every index that could find an expired key, a key or a scope.

All candidates stand while the rows come, so that they are as full as traffic leaves them, and not
as dense as when they are built at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any, Final

from django.db.transaction import atomic, set_rollback

from benchmarks import database, tables
from benchmarks.designs import Design, sizes
from benchmarks.rows import Rows
from idempotency.models import IdempotencyKey

EXPIRY: Final = {
    "expiry_btree": "btree (expires_at)",
    "expiry_btree_seconds": "btree (date_bin('1 s', expires_at, timestamptz 'epoch'))",
    "expiry_brin_128": "brin (expires_at) WITH (pages_per_range=128, autosummarize)",
    "expiry_brin_32": "brin (expires_at) WITH (pages_per_range=32, autosummarize)",
    "expiry_brin_8": "brin (expires_at) WITH (pages_per_range=8, autosummarize)",
}
KEY: Final = {
    "key_btree": "btree (key)",
    "key_hash": "hash (key)",
    "key_btree_4": "btree (hashtext(key))",
    "key_btree_8": "btree (hashtextextended(key, 0))",
    "key_bloom": "brin (key text_bloom_ops(n_distinct_per_range=1200))",
}
SCOPE: Final = {
    "scope_btree": "btree (scope)",
    "scope_hash": "hash (scope)",
    "scope_btree_expiry": "btree (scope, expires_at)",
    "scope_bloom": "brin (scope text_bloom_ops(n_distinct_per_range=1200))",
}

_CONDITIONS: Final = {
    "key_btree_4": "hashtext(key) = hashtext(%(key)s) AND key = %(key)s",
    "key_btree_8": "hashtextextended(key, 0) = hashtextextended(%(key)s, 0) AND key = %(key)s",
}
_FIND: Final = "SELECT * FROM idempotency_key WHERE {} ORDER BY expires_at DESC LIMIT 100"

_LOOK_UPS: Final = 11


def compare(rows: Rows, _requests: int) -> None:
    """Print bytes a row for every candidate, and what each does for a search."""
    design = Design(schema="digest", indexes=EXPIRY | KEY | SCOPE, is_logged=False)
    with design.created():
        rows.fill()
        _show_sizes("Table and candidate indexes", rows, design)
        _show_searches(rows)
    surrogate = Design(
        schema="surrogate",
        is_logged=False,
        changes="DROP CONSTRAINT idempotency_key_id_is_digest,"
        " ALTER COLUMN id TYPE bigint USING 0, ADD UNIQUE (scope, key)",
    )
    with surrogate.created():
        replace(rows, id="n").fill()
        _show_sizes("For comparison: a bigint, and scope and key unique", rows, surrogate)


def _show_sizes(title: str, rows: Rows, design: Design) -> None:
    measured = sizes()
    parts = {"heap": measured.heap, "TOAST": measured.toast} | {
        design.indexes.get(name, name): size for name, size in measured.indexes.items()
    }
    lines = [(name, size, size / rows.count) for name, size in parts.items()]
    tables.show(f"{title}, {rows.count:,} rows", ("part", "bytes", "bytes a row"), lines)


def _show_searches(rows: Rows) -> None:
    lines = [
        ("key: first bytes of the primary key", *_search(rows, None, _by_primary_key)),
        ("key: no index", *_search(rows, None, _by("key = %(key)s"))),
        *(
            (f"key: {KEY[name]}", *_search(rows, name, _by(_CONDITIONS.get(name, "key = %(key)s"))))
            for name in KEY
        ),
        ("scope: no index", *_search(rows, None, _by("scope = %(scope)s"))),
        *(
            (f"scope: {SCOPE[name]}", *_search(rows, name, _by("scope = %(scope)s")))
            for name in SCOPE
        ),
    ]
    tables.show("A search in the admin", ("found by", "ms", "pages read"), lines)


def _by_primary_key(_scope: str, key: str) -> tuple[str, Any]:
    keys = IdempotencyKey.objects.with_key(key).order_by("-expires_at")[:100]
    return keys.query.sql_with_params()


def _by(condition: str) -> Callable[[str, str], tuple[str, Any]]:
    return lambda scope, key: (_FIND.format(condition), {"scope": scope, "key": key})


def _search(
    rows: Rows, index: str | None, query: Callable[[str, str], tuple[str, Any]]
) -> tuple[float, int]:
    """Find some rows with the help of one index; give the medians of milliseconds and pages."""
    numbers = range(1, rows.count + 1, -(-rows.count // _LOOK_UPS))
    with _only(index):
        found = [database.explain(*query(*rows.names(number))) for number in numbers]
    return median(ms for ms, _ in found), int(median(pages for _, pages in found))


@contextmanager
def _only(name: str | None) -> Iterator[None]:
    """Let a query find no index for a search but this one."""
    with atomic():
        for other in (KEY | SCOPE).keys() - {name}:
            database.execute(f"DROP INDEX {other}")
        yield
        set_rollback(True)
