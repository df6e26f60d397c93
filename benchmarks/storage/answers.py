"""Compression and storage of the answer: bytes, and the time to write and to read them."""

from dataclasses import replace
from statistics import median
from typing import Final

from benchmarks import database, tables
from benchmarks.designs import Design, sizes
from benchmarks.rows import Rows

BODIES: Final = (1, 12, 60)
"""Sizes of the bodies, in objects of 350 bytes."""

OPTIONS: Final = {
    "pglz": "ALTER body SET COMPRESSION pglz, ALTER headers SET COMPRESSION pglz",
    "lz4": "ALTER body SET COMPRESSION lz4, ALTER headers SET COMPRESSION lz4",
    "none": "ALTER body SET STORAGE EXTERNAL, ALTER headers SET STORAGE EXTERNAL",
    "pglz, in the row": "ALTER body SET STORAGE MAIN, ALTER headers SET STORAGE MAIN,"
    " SET (toast_tuple_target=128)",
    "lz4, in the row": "ALTER body SET COMPRESSION lz4, ALTER headers SET COMPRESSION lz4,"
    " ALTER body SET STORAGE MAIN, ALTER headers SET STORAGE MAIN, SET (toast_tuple_target=128)",
}

# What is copied from a table as it lies there would not be compressed anew.
_COPY: Final = """
    INSERT INTO idempotency_key (
        id, created_at, expires_at, completed_at, attempts, status_code, status, scope, key,
        operation, fingerprint, last_error, headers, body
    )
    SELECT id, created_at, expires_at, completed_at, attempts, status_code, status, scope, key,
           operation, fingerprint, last_error, headers || '[]', body || ''
      FROM source.idempotency_key
"""
_READ: Final = "SELECT sum(get_byte(body, length(body) - 1)) FROM idempotency_key"
_TIMES: Final = 5


def compare(rows: Rows, _requests: int) -> None:
    """Print bytes a row and microseconds to write and to read one."""
    has_lz4 = database.value(
        "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    )
    lines: list[tuple[object, ...]] = []
    for items in BODIES:
        few = replace(rows, count=max(rows.count // (50 * items), 100), items=items)
        with Design(schema="source", changes=OPTIONS["none"]).created():
            few.fill()
            size = int(database.value("SELECT avg(length(body)) FROM idempotency_key"))
            for name, changes in OPTIONS.items():
                label = f"{size:,}, {name}"
                if "lz4" in name and not has_lz4:
                    lines.append((label, "not built into this server", "", "", ""))
                else:
                    lines.append((label, *_measure(few.count, changes)))
    tables.show(
        "A row by the size of its body, and by its compression",
        ("body bytes, compression", "heap bytes", "TOAST bytes", "write µs", "read µs"),
        lines,
    )


def _measure(count: int, changes: str) -> tuple[float, float, float, float]:
    written, read = [], []
    with Design(schema="answers", changes=changes).created():
        for _ in range(_TIMES):
            database.execute("TRUNCATE idempotency_key")
            written.append(database.explain(_COPY)[0])
            database.execute("VACUUM idempotency_key")
            read.append(database.explain(_READ)[0])
        measured = sizes()
    per_row = 1000 / count
    return (
        measured.heap / count,
        measured.toast / count,
        median(written) * per_row,
        median(read) * per_row,
    )
