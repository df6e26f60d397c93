"""The layouts to compare: the app's own table with other indexes and storage.

Each is a schema with a table of the app's name, so that the search path decides which of them the
app's own code finds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import database

_QUIET = "autovacuum_enabled=off"
"""So that what is counted is the requests' doing alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A layout of the table."""

    schema: str
    indexes: dict[str, str] = field(default_factory=dict)
    """By name, what follows ``CREATE INDEX name ON table USING``."""
    options: str = ""
    """Storage parameters, as in ``fillfactor=80``."""
    changes: str = ""
    """What follows ``ALTER TABLE``, if anything is to be changed."""
    key: str = "id"
    """The columns of the primary key."""
    is_logged: bool = True
    """Whether changes are written to the WAL: without, it is filled in half the time."""

    def create(self) -> None:
        """Create the table, with the app's columns and constraints, and let it be found."""
        database.execute(f"CREATE SCHEMA {self.schema}")
        kind = "TABLE" if self.is_logged else "UNLOGGED TABLE"
        database.execute(
            f"CREATE {kind} {self.schema}.idempotency_key"
            " (LIKE public.idempotency_key INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
            f" WITH ({', '.join(filter(None, (_QUIET, self.options)))})"
        )
        self.use()
        if self.changes:
            database.execute(f"ALTER TABLE idempotency_key {self.changes}")
        database.execute(f"ALTER TABLE idempotency_key ADD PRIMARY KEY ({self.key})")
        for name, definition in self.indexes.items():
            database.execute(f"CREATE INDEX {name} ON idempotency_key USING {definition}")

    def use(self) -> None:
        """Let the app's statements find this table, on this connection."""
        use(self.schema)

    @contextmanager
    def created(self) -> Iterator[None]:
        """Create the table, and drop it in the end."""
        self.create()
        try:
            yield
        finally:
            self.drop()

    def drop(self) -> None:
        """Drop the table, and let the app's own be found again."""
        database.execute(f"DROP SCHEMA {self.schema} CASCADE")
        use("public")


def use(schema: str) -> None:
    """Let the app's statements find the table of a schema, on this connection."""
    database.execute(f"SET search_path = {schema}, public")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the table that the search path finds."""

    heap: int
    toast: int
    """With its index."""
    indexes: dict[str, int]


def sizes() -> Sizes:
    """Measure the table that the search path finds."""
    ((heap, toast),) = database.fetch(
        "SELECT pg_relation_size(oid),"
        "       coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0)"
        "  FROM pg_class WHERE oid = 'idempotency_key'::regclass"
    )
    indexes = database.fetch(
        "SELECT relname, pg_relation_size(indexrelid) FROM pg_index"
        "  JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indrelid = 'idempotency_key'::regclass ORDER BY indisprimary DESC, relname"
    )
    return Sizes(heap, toast, dict(indexes))
