"""A column for the tenant: what it costs beside the primary key, and what in front of it.

Today the tenant, where there is one, is the beginning of the scope. All tables hold the same rows:
without tenants, then with a hundred. They take turns in random order, and a second table of today's
layout shows what chance alone makes of a ratio.
"""

import random
from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks import database, tables
from benchmarks.designs import Design, sizes
from benchmarks.rows import Rows

from .cost import cold_wal, warm_wal
from .places import PLACES, TENANTS, Layout

_TURN: Final = 10
"""Requests in a turn, of each kind."""

Ratio = tuple[float, str]


def compare(rows: Rows, requests: int) -> None:
    """Print bytes, WAL and time for every place of the tenant, without tenants and with."""
    with Design(schema="tenant_source", is_logged=False).created():
        rows.fill()
        database.execute("SET synchronous_commit = off")  # as in `cost`
        for has_tenants in (False, True):
            layouts = [Layout(place, rows, has_tenants=has_tenants) for place in PLACES]
            what = f"{rows.count:,} rows, {TENANTS if has_tenants else 'no'} tenants"
            for layout in layouts:
                layout.fill()
            _forget()
            _show_storage(f"The tenant's place: {what}", layouts)
            _show_requests(
                f"Requests by the tenant's place: {what}, {requests:,} requests each",
                layouts,
                requests,
            )
            for layout in layouts:
                layout.design.drop()
        database.execute("RESET synchronous_commit")


def _forget() -> None:
    """Fill PostgreSQL's buffers with another table, so that no layout begins with more of them."""
    by_key = "SELECT body FROM tenant_source.idempotency_key ORDER BY id"
    database.execute("SET enable_sort = off")
    database.execute(f"SELECT count(body) FROM ({by_key}) AS bodies")
    database.execute("RESET enable_sort")


def _show_storage(title: str, layouts: Sequence[Layout]) -> None:
    lines = []
    for layout in layouts:
        layout.design.use()
        size = sizes()
        row = float(database.value("SELECT avg(pg_column_size(k)) FROM idempotency_key AS k"))
        parts = (size.heap, size.indexes["idempotency_key_pkey"], sum(size.indexes.values()))
        per_row = [part / layout.rows.count for part in parts]
        lines.append((PLACES[layout.place], row, *per_row, layout.pages_of_search()))
    columns = ("bytes of a row", "heap", "primary key", "all indexes", "pages to find a key")
    tables.show(title, ("tenant", *columns), lines)


def _show_requests(title: str, layouts: Sequence[Layout], requests: int) -> None:
    cold = []
    for layout in layouts:
        database.execute("CHECKPOINT")
        cold.append(cold_wal(layout.design, layout.request, requests))
    first, replay = _in_turns(layouts, requests)
    # What else writes WAL only adds to it.
    warm = [
        min(warm_wal(layout.design, layout.request, requests) for _ in range(3))
        for layout in layouts
    ]
    names = [PLACES[layout.place] for layout in layouts]
    columns = ("WAL bytes", "after a checkpoint", "its full pages", "first request", "95 %")
    tables.show(
        title,
        ("tenant", *columns, "replay", "95 %"),
        [
            (name, size, *pages, *one, *two)
            for name, size, pages, one, two in zip(names, warm, cold, first, replay, strict=True)
        ],
    )


def _in_turns(layouts: Sequence[Layout], requests: int) -> tuple[list[Ratio], list[Ratio]]:
    """Return how long first requests and replays take, as ratios to the first layout's."""
    first: list[list[float]] = [[] for _ in layouts]
    replay: list[list[float]] = [[] for _ in layouts]
    order = list(zip(layouts, first, replay, strict=True))
    chance = random.Random(layouts[0].rows.seed)  # noqa: S311  # repeatable, not secret
    for _ in range(requests // _TURN):
        for layout, firsts, replays in chance.sample(order, len(order)):
            layout.design.use()
            firsts.append(median(layout.request() for _ in range(_TURN)))
            replays.append(median(layout.replay() for _ in range(_TURN)))
    return [_ratio(turns, first[0]) for turns in first], [
        _ratio(turns, replay[0]) for turns in replay
    ]


def _ratio(turns: list[float], todays: list[float]) -> Ratio:
    """Return the median of the ratios turn by turn, and where it lies with 95 % confidence."""
    ratios = sorted(one / other for one, other in zip(turns, todays, strict=True))
    rank = max(0, int(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5))
    return median(ratios), f"{ratios[rank]:.3f} to {ratios[-1 - rank]:.3f}"
