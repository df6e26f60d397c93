"""The ways to PostgreSQL that the suite runs under, and servers that end with who started them."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from support import CHECKOUT, DEADLINE, SERVERS, database_url, eventually

from testproject import leash, pgbouncer, variants

NO_PGBOUNCER = (
    "PgBouncer is not installed: 'apt-get install pgbouncer' or your system's like of it."
)


@pytest.mark.usefixtures("committed")
def test_the_suite_runs_under_the_variant_it_was_asked_for() -> None:
    """What the variant says of isolation and of PgBouncer holds for the tests' own connection."""
    variant = settings.DATABASE_VARIANT
    isolation = {"repeatable-read": "repeatable read", "serializable": "serializable"}

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        expected = isolation.get(variant.removesuffix("-server"), "read committed")
        assert cursor.fetchone() == (expected,)
        is_direct = connection.settings_dict["PORT"] == settings.POSTGRES["port"]
        assert is_direct == (variant != variants.PGBOUNCER)


def test_an_unknown_variant_is_an_error() -> None:
    """Which names those that there are."""
    with pytest.raises(ImproperlyConfigured) as caught:
        variants.changed({"OPTIONS": {}}, "pgbuoncer", pooled=False)

    for name in ("pgbuoncer", *variants.VARIANTS):
        assert name in str(caught.value)


def test_tox_runs_every_variant() -> None:
    """By its name, besides the default."""
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini")
    (named,) = re.findall(r"{(.*)}", " ".join(tox.sections()))

    assert {"default", *named.split(",")} == {*variants.VARIANTS}
    assert set(named.split(",")) <= set(tox["tox"]["env_list"].split())


def test_a_variant_keeps_what_it_does_not_change() -> None:
    """The URL's own options, and the pool that the shop has under ASGI."""
    database = {"NAME": "shop", "CONN_MAX_AGE": 60, "OPTIONS": {"sslmode": "require"}}

    changed = variants.changed(database, "persistent", pooled=False)
    assert changed == database | {"CONN_MAX_AGE": None}

    pooled = variants.changed(database, "server-side-binding", pooled=True)
    assert pooled["CONN_MAX_AGE"] == 0
    assert pooled["OPTIONS"].keys() == {"sslmode", "server_side_binding", "pool"}


def test_without_pgbouncer_its_variant_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which names the program and how to get it; nothing is skipped."""
    monkeypatch.delenv(pgbouncer.PORT, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(pgbouncer, "_SBIN", ())

    with pytest.raises(ImproperlyConfigured, match="apt-get install pgbouncer"):
        pgbouncer.before({"user": "shop", "password": "secret"})


@pytest.fixture
def orphan() -> Callable[[str], str]:
    """Run a program up to the line it prints, kill it, and give the line."""

    def run(program: str) -> str:
        environment = os.environ | {"DATABASE_URL": database_url()}
        environment.pop(pgbouncer.PORT, None)
        parent = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env=environment
            | {"PYTHONPATH": "tests", "DJANGO_SETTINGS_MODULE": "testproject.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout
        line = parent.stdout.readline().strip()
        parent.kill()
        parent.communicate()
        return line

    return run


def is_listening(port: str) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


BEFORE = """
import psycopg, sys
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from testproject import pgbouncer
direct = conninfo_to_dict({url!r})
conninfo = pgbouncer.before(direct)
assert pgbouncer.before(direct) == conninfo, "who asks again must get the same one"
with psycopg.connect(make_conninfo(**conninfo)) as session:
    assert session.execute("SELECT 1").fetchone() == (1,)
print(conninfo["port"], flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("committed")
def test_pgbouncer_ends_with_who_started_it(orphan: Callable[[str], str]) -> None:
    """However that one ends; until then whoever asks again is sent to the same PgBouncer."""
    if not pgbouncer.program():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_PGBOUNCER)

    port = orphan(BEFORE.format(url=database_url()))

    eventually(lambda: not is_listening(port))


SERVE = """
import django
django.setup()
from support import shop
with shop({kind!r}) as client:
    print(client.base_url.port, flush=True)
    input()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("kind", SERVERS)
def test_the_shops_servers_end_with_the_tests(kind: str, orphan: Callable[[str], str]) -> None:
    """However those end: pytest may be killed."""
    port = orphan(SERVE.format(kind=kind))

    eventually(lambda: not is_listening(port))


def test_a_program_that_cannot_run_exits_with_127(tmp_path: Path) -> None:
    """As in a shell, and it says what is wrong."""
    missing = leash.spawn([tmp_path / "nothing"], signal.SIGTERM, stderr=subprocess.PIPE)
    _, error = missing.communicate(timeout=DEADLINE)

    assert missing.returncode == 127
    assert "nothing: No such file or directory" in error.decode()
