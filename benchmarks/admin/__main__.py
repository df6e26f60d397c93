"""Print what the admin's pages take: ``python -m benchmarks.admin --help``."""

import argparse
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, setup_test_environment

from benchmarks import database, rows, tables
from idempotency.admin.changelist import WINDOW
from idempotency.digests import digest
from idempotency.models import IdempotencyKey

LIST = "/admin/idempotency/idempotencykey/"
COLUMNS = ("page", "ms", "of that in PostgreSQL", "queries", "pages of 8 kB looked at")


def pages(scope: str, key: str) -> Iterator[tuple[str, str]]:
    """Give names and addresses."""
    yield "first, with the dashboard", LIST
    yield "last of the window", f"{LIST}?p={WINDOW // 100}"
    for state in IdempotencyKey.State:
        yield f"filter: {state.label}", f"{LIST}?state={state.value}"
    yield "filter: 5xx, which no key has", f"{LIST}?status_code=5"
    yield "search: key", f"{LIST}?q={key}"
    yield "search: scope and key", f"{LIST}?q={scope}+{key}"
    yield "search: scope", f"{LIST}?q={scope}"
    yield "search: nothing found", f"{LIST}?q=nonsense"
    yield "one key", f"{LIST}{digest(scope, key)}/change/"


def measure(client: Client, address: str, rounds: int) -> tuple[float, float, int, int]:
    """Fetch a page several times; give the figures under `COLUMNS`, the times as medians."""
    seconds, in_database = [], []
    for _ in range(rounds):
        with CaptureQueriesContext(connection) as queries:
            began = perf_counter()
            client.get(address).content  # noqa: B018  # a template is rendered by then
            seconds.append(perf_counter() - began)
        in_database.append(sum(float(query["time"]) for query in queries))
    reads = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    looked_at = sum(database.explain(sql.replace("%", "%%"))[1] for sql in reads)
    return median(seconds) * 1000, median(in_database) * 1000, len(queries), looked_at


def main() -> None:
    """Fill a table, and look at every kind of page."""
    parser = argparse.ArgumentParser("python -m benchmarks.admin", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="default: 200000")
    parser.add_argument("--rounds", type=int, default=5, help="each page so often: 5")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    arguments = parser.parse_args()
    setup_test_environment()
    with database.own_database():
        tables.begin(arguments)
        data = rows.Rows(
            count=arguments.rows, seed=arguments.seed, now=database.value("SELECT now()")
        )
        data.fill()
        client = Client()
        client.force_login(User.objects.create_superuser("clerk"))
        addresses = pages(*data.names(arguments.rows // 2 + 1))
        figures = [(name, *measure(client, it, arguments.rounds)) for name, it in addresses]
        tables.show(f"The admin's pages, {arguments.rows:,} keys", COLUMNS, figures)


if __name__ == "__main__":
    main()
