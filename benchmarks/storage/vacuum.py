"""How much room the table takes when autovacuum comes after more or fewer deleted rows.

A purge every hour deletes a twenty-fourth of the keys, and new keys can take their place only after
a VACUUM. PostgreSQL's default is one for every fifth of a table.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from benchmarks import database, tables
from benchmarks.designs import Design, sizes
from benchmarks.rows import Rows

from .updates import INDEXES

SCALE_FACTORS: Final = (0.2, 0.1, 0.05, 0.02)
"""Values of ``autovacuum_vacuum_scale_factor``."""

_HOURS: Final = 72
_LIVE: Final = 24


def compare(rows: Rows, _requests: int) -> None:
    """Print bytes a live row after three days of purges, for every factor."""
    few = replace(rows, count=max(rows.count // 50, 24 * 50), hours=_LIVE)
    tables.show(
        f"{few.count:,} live keys, after {_HOURS} purges, one every hour",
        (
            "autovacuum_vacuum_scale_factor",
            "heap bytes a row",
            "index bytes a row",
            "VACUUMs a day",
        ),
        [(str(factor), *_live(few, factor)) for factor in SCALE_FACTORS],
    )


def _live(rows: Rows, factor: float) -> tuple[float, float, float]:
    with Design(schema="vacuumed", indexes=INDEXES, is_logged=False).created():
        rows.fill()
        dead = vacuums = 0
        for hour in range(1, _HOURS + 1):
            now = rows.now + timedelta(hours=hour)
            dead += database.execute("DELETE FROM idempotency_key WHERE expires_at <= %s", [now])
            if dead > factor * rows.count:
                database.execute("VACUUM idempotency_key")
                dead, vacuums = 0, vacuums + 1
            hourly = replace(
                rows, count=rows.count // _LIVE, hours=1, now=now, seed=rows.seed + hour
            )
            hourly.insert()
        measured = sizes()
    indexes = sum(measured.indexes.values())
    return measured.heap / rows.count, indexes / rows.count, vacuums * 24 / _HOURS
