"""Finding the expired with a b-tree and with BRIN, when the table is new and when it has aged.

The space that a purge frees is filled with younger keys, so after a day the rows do not lie in the
order of their time any more; and what BRIN knows of a range of pages only ever grows.
"""

from dataclasses import replace
from datetime import timedelta
from statistics import median
from typing import Final

from benchmarks import database, tables
from benchmarks.designs import Design, sizes
from benchmarks.rows import HOURS, Rows

DESIGNS: Final = (
    Design(schema="btree", indexes={"expiry": "btree (expires_at)"}, is_logged=False),
    Design(
        schema="brin",
        indexes={"expiry": "brin (expires_at) WITH (pages_per_range=32, autosummarize)"},
        is_logged=False,
    ),
)
_ORDER: Final = {"btree": "ORDER BY expires_at", "brin": ""}  # BRIN would have to sort them all

_STEP: Final = 6  # hours: what is expired in the beginning, and comes anew in every round
_ROUNDS: Final = 10


def compare(rows: Rows, _requests: int) -> None:
    """Print what a purge's first look costs when the table is new, and over two days and a half."""
    few = replace(rows, count=max(rows.count // 10, 1000))
    lines = []
    for design in DESIGNS:
        with design.created():
            few.fill()
            new, looks = _look(design, few, 0), []
            for number in range(1, _ROUNDS + 1):
                _age(few, number)
                looks.append(_look(design, few, number))
            size = sizes().indexes["expiry"] / few.count
            lines.append((design.indexes["expiry"], size, new, int(median(looks)), max(looks)))
    tables.show(
        f"The first 1,000 expired of {few.count:,} rows, over {_STEP * _ROUNDS} hours",
        ("index", "bytes a row", "pages read at first", "later: median", "most"),
        lines,
    )


def _age(rows: Rows, number: int) -> None:
    """Let six hours pass: what had expired goes, and as many keys come."""
    now = rows.now + timedelta(hours=_STEP * number)
    due = now - timedelta(hours=_STEP)
    database.execute("DELETE FROM idempotency_key WHERE expires_at <= %s", [due])
    database.execute("VACUUM idempotency_key")
    count = rows.count * _STEP // HOURS
    replace(rows, count=count, hours=_STEP, now=now, seed=rows.seed + number).fill()


def _look(design: Design, rows: Rows, number: int) -> int:
    now = rows.now + timedelta(hours=_STEP * number)
    order = _ORDER[design.schema]
    query = f"SELECT id FROM idempotency_key WHERE expires_at <= %s {order} LIMIT 1000"
    return database.explain(query, [now])[1]
