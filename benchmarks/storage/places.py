"""Tables with the tenant in another place each, and the app's own requests to them.

The app's SQL is changed for a place before the time counts.
"""

import hashlib
import random
import re
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from benchmarks import database, traffic
from benchmarks.designs import Design
from benchmarks.rows import DIGEST, Rows
from idempotency import claims, statements
from idempotency.digests import digest
from idempotency.models import IdempotencyKey

from .updates import INDEXES

PLACES: Final = {
    "scope": "in the scope",
    "again": "in the scope, again",
    "beside": "column",
    "front": "column, in front of the primary key",
}
TENANTS: Final = 100
"""Their names have ten characters."""

_NAME: Final = f"'shop-' || lpad((split_part(scope, ':', 2)::int % {TENANTS})::text, 5, '0')"
_IN_SCOPE: Final = "CASE tenant WHEN '' THEN scope ELSE 'tenant:' || tenant || '/' || scope END"
_BOTH: Final = "(tenant || ' ' || scope)"
"""What is digested in place of the scope where the tenant is a column beside the key."""
_COLUMNS: Final = [
    field.attname
    for field in IdempotencyKey._meta.concrete_fields  # noqa: SLF001
]
_LOOK_UPS: Final = 11


class Layout:
    """A place for the tenant. Those with the same rows have the same requests."""

    def __init__(self, place: str, rows: Rows, *, has_tenants: bool) -> None:
        self.place, self.rows, self.has_tenants = place, rows, has_tenants
        self.has_column = place in {"beside", "front"}
        check = DIGEST.replace("scope", _BOTH) if place == "beside" else DIGEST
        changes = f"DROP CONSTRAINT idempotency_key_id_is_digest, ADD CHECK (id = {check})"
        if self.has_column:
            changes += ", ADD tenant text NOT NULL DEFAULT ''"
        self.design = Design(
            schema=f"tenant_{place}",
            indexes=INDEXES | ({"scope": "btree (tenant, scope)"} if self.has_column else {}),
            changes=changes,
            key="tenant, id" if place == "front" else "id",
        )
        self.caller = traffic.Caller(rows.seed)
        self.random = random.Random(rows.seed)  # noqa: S311  # repeatable, not secret

    def fill(self) -> None:
        """Create the table, and copy the rows to it from the schema ``tenant_source``."""
        self.design.create()
        columns = dict.fromkeys(_COLUMNS)
        digested = {"beside": _BOTH, "front": "scope"}.get(self.place, "in_scope")
        columns["id"] = DIGEST.replace("scope", digested)
        columns |= {"tenant": None} if self.has_column else {"scope": "in_scope"}
        tenant = _NAME if self.has_tenants else "''"
        database.execute(
            f"INSERT INTO idempotency_key ({', '.join(columns)})"
            f"SELECT {', '.join(value or name for name, value in columns.items())}"
            "  FROM tenant_source.idempotency_key,"
            f"      LATERAL (SELECT {tenant} AS tenant) AS named,"
            f"      LATERAL (SELECT {_IN_SCOPE} AS in_scope) AS scoped"
        )
        database.execute("VACUUM ANALYZE idempotency_key")

    def pages_of_search(self) -> int:
        """Return how many pages the admin reads to find a key of any scope: the median."""
        numbers = range(1, self.rows.count + 1, -(-self.rows.count // _LOOK_UPS))
        keys = [self.rows.names(number)[1] for number in numbers]
        found = [IdempotencyKey.objects.with_key(key).query.sql_with_params() for key in keys]
        return int(median(database.explain(*query)[1] for query in found))

    def request(self) -> float:
        """Make a first request of some tenant, and return the seconds it took."""
        return self._timed(self.random.randrange(TENANTS), self.caller.request)

    def replay(self) -> float:
        """Retry a request whose answer is stored, and return the seconds it took."""
        number = 1 + 100 * self.random.randrange(self.rows.count // 200, self.rows.count // 100)
        scope, key = self.rows.names(number)
        fingerprint = b"\x01" + hashlib.sha256(key.encode()).digest()

        def retry() -> None:
            claim = claims.Claim(scope, key, (fingerprint,), "POST /payments/", traffic.TTL)
            with claims.attempt(claim) as answer:
                assert not isinstance(answer, claims.Attempt)  # noqa: S101  # it is stored

        return self._timed(int(scope.partition(":")[2]) % TENANTS, retry)

    def _timed(self, number: int, work: Callable[[], None]) -> float:
        tenant = f"shop-{number:05}" if self.has_tenants else ""
        in_scope = f"tenant:{tenant}/" if self.has_tenants else ""
        prefix = {"beside": f"{tenant} ", "front": ""}.get(self.place, in_scope)
        hot = {name: getattr(statements, name) for name in ("READ", "CLAIM", "LOCK", "COMPLETE")}
        sql: dict[str, Any] = {n: self._sql(text, tenant, prefix) for n, text in hot.items()}
        full = patch.object(claims, "digest", lambda scope, key: digest(prefix + scope, key))
        with patch.multiple(statements, **sql), full:
            began = time.perf_counter()
            work()
            return time.perf_counter() - began

    def _sql(self, sql: str, tenant: str, prefix: str) -> str:
        if not self.has_column:
            return sql.replace("'in_progress', %s", f"'in_progress', '{prefix}' || %s")
        sql = sql.replace("id, created_at, expires_at", "tenant, id, created_at, expires_at")
        sql = sql.replace("%s::uuid, statement", f"'{tenant}', %s::uuid, statement")
        if self.place == "beside":
            return sql
        sql = sql.replace("ON CONFLICT (id)", "ON CONFLICT (tenant, id)")
        return re.sub(r"\bid = ", f"tenant = '{tenant}' AND id = ", sql)
