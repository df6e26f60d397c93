"""The benchmarks run, in a small size, and leave nothing behind."""

import os
import subprocess
import sys

import pytest
from django.db import connection
from support import CHECKOUT, database_url

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
    ],
    ids=["storage", "purge", "admin"],
)
def test_a_benchmark_prints_its_tables_and_drops_its_database(
    arguments: list[str], titles: list[str]
) -> None:
    """In Markdown, with versions and arguments on top."""
    before = databases()
    printed = run(*arguments)

    assert printed.startswith("PostgreSQL ")
    assert "rows: 2000" in printed
    assert "seed: 1" in printed
    for title in titles:
        _, found, rest = printed.partition(title)
        assert found, title
        lines = [line for line in rest.splitlines()[1:8] if line.startswith("|")]
        assert len(lines) > 2, title
    assert databases() <= before
