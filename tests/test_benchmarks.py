"""The benchmarks run, in a small size, and leave nothing behind."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest
from django.db import connection
from reading import blocks
from support import CHECKOUT, database_url

from benchmarks import capacity
from benchmarks.speed import peers, ratios

pytestmark = pytest.mark.slow

STORAGE = [
    "Table and candidate indexes, 2,000 rows",
    "The tenant's place: 2,000 rows",
    "Requests by the tenant's place",
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

ADMIN = ["The admin's pages, 2,000 keys"]
CROWD = [
    "Milliseconds from when a client meant to send",
    "Processor time and WAL of a request of the mix",
    "100 requests at once with 10 keys",
    "20 clients, as fast as they can",
]
OVERLOAD = ["Others' payments while one is"]
SPEED = [
    "Through HTTP, 2 rounds of 10 keys",
    "In process, 2 rounds of 10 keys",
    "What a request gets that has the key and the body",
    "The worker is killed",
]
LINK = ["Over a link, ms each way; 1 rounds of 2 requests"]
GROWTH = [
    "Time by the rows in the table, 1 rounds of 5 requests",
    "Bytes a row",
    "Bytes of WAL, 5 requests after a checkpoint",
]

SMALL_LINK = ["--delays", "0", "0.1", "--rounds=1", "--requests=2"]
SMALL_GROWTH = ["--rows", "1000", "2000", "--rounds=1", "--requests=5"]
SMALL_SPEED = ["--variants", "bare", "ours", "--rounds=2", "--requests=10"]
SMALL_CROWD = [
    "--connections=100",
    "--seconds=3",
    "--burst=100",
    "--keys=10",
    "--clients=20",
    "--payers=20",
]


def run(*arguments: str) -> tuple[str, int]:
    """Run a module as users do, on the test database's server; give its output and process id."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "DATABASE_URL": database_url()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 0, complaints
    return printed, process.pid


def databases() -> set[str]:
    """Give the databases of the server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(
    ("arguments", "shown", "titles"),
    [
        (["storage", "--rows=2000", "--requests=10"], ["rows: 2000", "seed: 1"], STORAGE),
        (
            ["purge", "--rows=2000", "--rounds=1", "--http-seconds=1"],
            ["rows: 2000", "seed: 1"],
            PURGE,
        ),
        (["admin", "--rows=2000", "--rounds=1"], ["rows: 2000", "seed: 1"], ADMIN),
        (["crowd", *SMALL_CROWD], ["connections: 100"], CROWD),
        (["overload", "--rounds=1", "--window=1"], ["rounds: 1", "seed: 1"], OVERLOAD),
        (["speed", *SMALL_SPEED], ["variants: bare; ours", "goal for ours"], SPEED),
        (["speed.link", *SMALL_LINK], ["delays: 0.0; 0.1", "bare + 1"], LINK),
        (["speed.growth", *SMALL_GROWTH], ["rows: 1000; 2000", "goal"], GROWTH),
    ],
    ids=["storage", "purge", "admin", "crowd", "overload", "speed", "link", "growth"],
)
def test_a_benchmark_prints_its_tables_and_drops_its_database(
    arguments: list[str], shown: list[str], titles: list[str]
) -> None:
    """In Markdown, with versions and arguments on top."""
    name, *options = arguments
    printed, pid = run(f"benchmarks.{name}", *options)

    assert printed.startswith("PostgreSQL ")
    for argument in shown:
        assert argument in printed
    for title in titles:
        _, found, rest = printed.partition(title)
        assert found, title
        lines = [line for line in rest.splitlines()[1:8] if line.startswith("|")]
        assert len(lines) > 2, title
    assert not [name for name in databases() if name.startswith(f"idempotency_benchmark_{pid}")]


@pytest.mark.usefixtures("committed")
def test_the_comparison_sees_what_a_view_without_keys_does_and_ours_does_not() -> None:
    """The bare view pays again on a retry and after a killed worker; ours pays once."""
    printed, _pid = run("benchmarks.speed", "--variants", "bare", "ours", "--what", "facts")
    rows = [re.split(r" *\| *", line.strip("| ")) for line in printed.splitlines() if "|" in line]
    bare, ours = ([row[1:] for row in rows if row[0] == name] for name in ("bare", "ours"))

    assert bare[0] == ["nothing", "PAYS AGAIN", "their own payment", "401", "PAYS AGAIN"]
    assert ours[0][:4] == ["PostgreSQL", "same bytes", "their own payment", "401"]
    assert ours[0][4].startswith("409 after ")
    assert [killed.partition(",")[0] for killed in bare[1]] == ["1", "2", "2"]
    assert [killed.partition(",")[0] for killed in ours[1]] == ["1", "1", "1"]


def test_every_peer_is_wired(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be asked for by name is what the project can be made of."""
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks/speed/project")
    monkeypatch.setenv("SPEED_VARIANT", "bare")
    monkeypatch.setenv("SPEED_SCHEMA", "bare")
    wirings = importlib.import_module("paying.wirings")

    assert wirings._WIRINGS.keys() == peers.PEERS.keys()
    required = {name for peer in peers.PEERS.values() for name in peer.requirements}
    assert all("==" in requirement for requirement in required - {"redis"})


def test_a_ratio_is_that_of_the_medians_of_the_run() -> None:
    """With the middle half of the rounds' own, so that one odd round shows as what it is."""
    bare = ratios.Times([[1.0, 1.0, 1.0]] * 5)
    ours = ratios.Times([[2.0, 2.0, 2.0]] * 4 + [[9.0, 9.0, 9.0]])
    found = ratios.ratio(ours, bare)

    assert (found.p50, found.low, found.high) == (2, 2, 2)
    assert found.p99 == 9
    assert found.mean == pytest.approx(3.4)


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
    printed, _pid = run("benchmarks.capacity", "--requests=100")
    assert "GB" in printed


def test_the_capacity_model_prints_what_the_documentation_shows() -> None:
    """The page's command, with the page's text below it; and as predicted for the crowd there."""
    page = "scaling.md"
    command = next(b.code for b in blocks("sh", page=page) if "benchmarks.capacity" in b.code)
    (shown,) = blocks("text", page=page)
    printed, _pid = run(*shlex.split(command)[2:])

    assert printed.strip() == shown.code.strip()

    of_crowd = capacity.need(capacity.Target(206, 0.3, 290))
    text = (CHECKOUT / "docs" / page).read_text()
    assert f"| {capacity.most(2, 0.3):,.0f} |" in text
    assert f"| {of_crowd.wal_bytes_a_second / 206:,.0f} |" in text
