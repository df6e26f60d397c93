"""The real django-tenants, in a project of its own: two tenants whose first users send one key."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo
from support import CHECKOUT, database_url, session

pytestmark = pytest.mark.slow

DATABASE = f"shop_tenancy_{os.getpid()}"


@pytest.fixture
def own_database(django_db_setup: None) -> Iterator[str]:
    """Create a database, and return how to connect to it."""
    with session(dbname="postgres") as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        yield make_conninfo(database_url(), dbname=DATABASE)
        server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.mark.parametrize(("keys", "atomic"), [("shared", ""), ("own", "1")])
def test_fault_n_with_django_tenants(own_database: str, keys: str, atomic: str) -> None:
    """Each tenant's order is made, once, wherever the keys lie; and the check says what it must."""
    environment = {"DATABASE_URL": own_database, "KEYS": keys, "ATOMIC": atomic}
    run = subprocess.run(
        [sys.executable, "-m", "tenancy"],
        cwd=CHECKOUT / "tests",
        env={**os.environ, **environment, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])

    scopes = [f"schema:{name}/user:1" for name in ("acme", "globex")]
    for number, name in enumerate(("acme", "globex")):
        assert found[name] == {
            "told": [{"user": f"first of {name}", "order": 0}] * 2,
            "replayed": [False, True],
            "state": "completed",
            "orders": 1,
            "scopes": [scopes[number]] if keys == "own" else scopes[: number + 1],
        }
    assert found["checks"] == ["idempotency.E009"] * (keys == "shared")
