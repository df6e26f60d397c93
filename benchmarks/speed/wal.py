"""What was written to the WAL, by the table or index it was written for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks import database

TOTAL: Final = "in all"
_ELSEWHERE: Final = "elsewhere"
"""In other databases, or for all of them."""

# A record belongs to the first page that it changes, and an image to its own; what belongs to no
# page is the commits.
_BY_PART = """
    WITH blocks AS (
        SELECT *, sum(block_fpi_length) OVER (PARTITION BY start_lsn) AS images
          FROM pg_get_wal_block_info(%s, %s, false)
    ), parts AS (
        SELECT pg_relation_filenode(part) AS relfilenode, part::regclass::text AS name
          FROM (
            SELECT 'idempotency_key'::regclass::oid AS part UNION ALL
            SELECT indexrelid FROM pg_index WHERE indrelid = 'idempotency_key'::regclass
          ) AS of_the_table
    )
    SELECT CASE WHEN datname IS NULL THEN 'elsewhere' ELSE coalesce(name, 'the view''s own') END,
           sum(CASE WHEN block_id = 0 THEN record_length - images ELSE 0 END),
           sum(block_fpi_length)
      FROM blocks LEFT JOIN parts USING (relfilenode)
      LEFT JOIN pg_database ON pg_database.oid = reldatabase AND datname = current_database()
     GROUP BY datname, name ORDER BY name NULLS LAST
"""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Of records, and of images: a checkpoint lets a page's first change log all of the page."""

    records: int = 0
    images: int = 0

    def each(self, requests: int) -> str:
        """Give both as one of so many requests has them."""
        return f"{self.records / requests:,.0f} + {self.images / requests:,.0f}"


def can_be_told() -> bool:
    """Tell whether the server can say what its WAL was written for: PostgreSQL 16 or newer."""
    version = int(database.value("SHOW server_version_num"))
    extension = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_walinspect'"
    return version >= 160000 and bool(database.value(extension))


def written(work: Callable[[], object]) -> dict[str, Bytes]:
    """Do some work just after a checkpoint; give what of the WAL was written for what, and all."""
    database.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    database.execute("CHECKPOINT")
    begin = database.value("SELECT pg_current_wal_insert_lsn()")
    work()
    end = database.value("SELECT pg_current_wal_insert_lsn()")
    database.execute("CHECKPOINT")  # only what has come to the disk can be read
    size = int(database.value("SELECT %s::pg_lsn - %s::pg_lsn", (end, begin)))
    parts = {
        name: Bytes(int(records), int(images))
        for name, records, images in database.fetch(_BY_PART, (begin, end))
    }
    elsewhere = parts.pop(_ELSEWHERE, Bytes())
    size -= elsewhere.records + elsewhere.images
    images = sum(part.images for part in parts.values())
    rest = Bytes(size - images - sum(part.records for part in parts.values()))
    return parts | {"commits, page headers": rest, TOTAL: Bytes(size - images, images)}
