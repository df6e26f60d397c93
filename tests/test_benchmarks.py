"""The benchmarks run, in a small size, and leave nothing behind."""

import os
import subprocess
import sys

import pytest
from django.db import connection
from support import CHECKOUT, database_url

from benchmarks import capacity

pytestmark = pytest.mark.slow

STORAGE = [
    "Table and candidate indexes, 2,000 rows",
    "A search in the admin",
    "The first 1,000 expired of 1,000 rows",
    "A request's WAL and time, 1,000 rows, 10 requests each",
    "100 requests, from claim to completion",
    "A row by the size of its body, and by its compression",
]
PURGE = [
    "Live requests, from claim to commit",
    "Speed: at least 20 times that of the shop",
    "Size in bytes",
]

SMALL_CROWD = ["--connections=100", "--seconds=3", "--burst=100", "--keys=10", "--clients=20"]


def run(*arguments: str) -> str:
    """Run a module as users do, on the server of the test database; give what it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "DATABASE_URL": database_url()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def databases() -> set[str]:
    """Give the databases of the server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(
    ("arguments", "titles"),
    [
        (["benchmarks.storage", "--rows=2000", "--requests=10"], STORAGE),
        (["benchmarks.purge", "--rows=2000", "--rounds=1", "--http-seconds=1"], PURGE),
        (["benchmarks.admin", "--rows=2000", "--rounds=1"], ["The admin's pages, 2,000 keys"]),
        (["benchmarks.crowd", *SMALL_CROWD], ["Capacity", "100 requests at once with 10 keys"]),
        (["benchmarks.overload", "--rounds=1", "--window=1"], ["Others' payments while one is"]),
    ],
    ids=["storage", "purge", "admin", "crowd", "overload"],
)
def test_a_benchmark_prints_its_tables_and_drops_its_database(
    arguments: list[str], titles: list[str]
) -> None:
    """In Markdown, with versions and arguments on top."""
    before = databases()
    printed = run(*arguments)

    assert printed.startswith("PostgreSQL ")
    name, _, value = arguments[1].removeprefix("--").partition("=")
    assert f"{name}: {value}" in printed
    assert "seed: 1" in printed
    for title in titles:
        _, found, rest = printed.partition(title)
        assert found, title
        lines = [line for line in rest.splitlines()[1:8] if line.startswith("|")]
        assert len(lines) > 2, title
    assert databases() <= before


def test_the_capacity_model_prints_what_a_load_takes() -> None:
    """Twice the requests take twice the disk; a retry takes none."""
    first, more, retried = (
        capacity.need(capacity.Target(requests, retries, 500))
        for requests, retries in [(1000, 0), (2000, 0), (2000, 0.5)]
    )

    assert more.disk_bytes == 2 * first.disk_bytes
    assert retried.disk_bytes == first.disk_bytes
    assert retried.wal_bytes_a_second == first.wal_bytes_a_second
    assert first.workers < retried.workers < more.workers
    assert "GB" in run("benchmarks.capacity", "--requests=100")
