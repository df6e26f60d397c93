"""Rows as traffic leaves them: completed, of many callers, inserted in the order of their time."""

from dataclasses import dataclass
from datetime import datetime

from . import database, tables

HOURS = 30
"""How far back the rows reach. Keys live for 24 hours, so a fifth of them has expired: what a purge
finds that should have run six hours ago."""

CALLER_HAS = 20
"""Keys per caller on average."""

BATCH = 50_000
"""Rows inserted by one statement."""

# What an API answers: an object of 350 bytes, or a list of several.
BODY = """
    SELECT convert_to('[' || string_agg(format(
        '{"id": %%s, "amount": "%%s.%%s", "currency": "EUR", "card": "tok_visa", '
        '"state": "captured", "reference": "%%s", "customer": {"id": %%s, '
        '"email": "customer%%s@example.com"}, "created": "%%s", '
        '"receipt": "https://shop.example.com/receipts/%%s"}',
        n, n %% 500, 10 + n %% 90, md5(n || '/' || item), caller, caller,
        created, md5(n || '-' || item)), ', ') || ']', 'UTF8')
      FROM generate_series(1, %(items)s) AS item
"""

# What a view sets that takes part in HTTP, without what is never kept.
HEADERS = """
    SELECT format(
        '[["Content-Type", "application/json"], ["Content-Language", "en"], '
        '["Location", "/payments/%%s/"], ["ETag", "\\"%%s\\""], ["Cache-Control", "no-store"], '
        '["Vary", "Accept, Accept-Language"], ["Allow", "GET, POST, HEAD, OPTIONS"], '
        '["Link", "</payments/%%s/receipt/>; rel=\\"receipt\\""], ["API-Version", "2026-06-01"], '
        '["Payment-State", "captured"]]', n, left(md5(n::text), 16), n)::jsonb
"""

DIGEST = """
    encode(substr(sha256(convert_to(key, 'UTF8')), 1, 4)
           || substr(sha256(convert_to(length(scope) || ':' || scope || key, 'UTF8')), 1, 12),
           'hex')::uuid
"""
"""`IdempotencyKey.digest` in SQL."""

# The least that an API answers, for who wants many rows.
SMALL_BODY = """
    SELECT convert_to(format('{"id": %%s, "state": "captured"}', n), 'UTF8')
"""
SMALL_HEADERS = """
    SELECT format('[["Content-Type", "application/json"], ["Location", "/%%s/"]]', n)::jsonb
"""

# One in a hundred has been tried and not completed.
_FILL = """
    INSERT INTO idempotency_key (
        created_at, expires_at, completed_at, attempts, status, scope, key, operation,
        fingerprint, last_error, status_code, headers, body, id
    )
    SELECT created, created + interval '24 hours',
           CASE WHEN is_done THEN created + interval '20 ms' END, 1,
           CASE WHEN is_done THEN 'completed' ELSE 'in_progress' END, scope, key, 'POST /payments/',
           '\\x01'::bytea || sha256(convert_to(key, 'UTF8')),
           CASE WHEN is_done THEN '' ELSE 'HTTP 503' END, CASE WHEN is_done THEN 201 END,
           CASE WHEN is_done THEN (-- headers) END,
           CASE WHEN is_done THEN (-- body) END, -- id
      FROM generate_series(%(first)s::int, %(last)s::int) AS n,
           LATERAL (SELECT 1 + abs(hashint8(n + %(seed)s)::bigint) %% %(callers)s AS caller) AS c,
           LATERAL (SELECT 'user:' || caller AS scope,
                           md5(n || ':' || %(seed)s)::uuid::text AS key,
                           %(now)s::timestamptz
                           - interval '1 hour' * (%(hours)s * (1 - n::float8 / %(count)s))
                           AS created,
                           n %% 100 <> 0 AS is_done) AS r
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How many rows, and which."""

    count: int
    seed: int
    now: datetime
    """When the last of them was inserted."""
    items: int = 1
    """Objects in each body, of 350 bytes each."""
    hours: float = HOURS
    """How far back they reach."""
    id: str = DIGEST
    """SQL of the primary key."""
    headers: str = HEADERS
    body: str = BODY
    """SQL of what was answered."""

    def fill(self) -> None:
        """Insert them, and let PostgreSQL know how many there are."""
        self.insert()
        database.execute("VACUUM ANALYZE idempotency_key")

    def insert(self) -> None:
        """Insert them into the table that the search path finds."""
        batches = range(1, self.count + 1, BATCH)
        for first in tables.progress(batches, "Filling"):
            last = min(self.count, first + BATCH - 1)
            values = {
                "first": first,
                "last": last,
                "count": self.count,
                "seed": self.seed,
                "now": self.now,
                "items": self.items,
                "hours": self.hours,
                "callers": self.callers,
            }
            sql = _FILL
            for name in ("id", "headers", "body"):
                sql = sql.replace(f"-- {name}", getattr(self, name))
            database.execute(sql, values)

    @property
    def callers(self) -> int:
        """How many callers the keys belong to."""
        return max(1, self.count // CALLER_HAS)

    def names(self, number: int) -> tuple[str, str]:
        """Give scope and key of a row, by its number from 1 to the count."""
        ((scope, key),) = database.fetch(
            "SELECT 'user:' || 1 + abs(hashint8(%(n)s::int + %(seed)s)::bigint) %% %(callers)s,"
            " md5(%(n)s::text || ':' || %(seed)s)::uuid::text",
            {"n": number, "seed": self.seed, "callers": self.callers},
        )
        return scope, key
