"""The demo keeps its promises, and leaves nothing running."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection
from support import CHECKOUT, DEADLINE, database_url, eventually

from testproject.shop.demonstration.scenes import SCENES
from testproject.shop.seed import CLERK

pytestmark = pytest.mark.slow

DEMO = [sys.executable, str(CHECKOUT / "manage.py"), "demo", "--port=0"]


@pytest.fixture
def environment(committed: None) -> dict[str, str]:
    """Give the variables that send the demo to the test database, and its output to us."""
    printed = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "80", "FORCE_COLOR": ""}
    return {**os.environ, "DATABASE_URL": database_url(), **printed}


def is_listening(output: str) -> bool:
    """Tell whether somebody listens where the output says the shop is."""
    port = re.search(r"http://127\.0\.0\.1:(\d+)", output)
    assert port
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port[1]))) == 0


def is_running(pid: int) -> bool:
    """Tell whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def connected_processes() -> set[int]:
    """Give the processes of the shop that are connected to the test database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT substr(application_name, 6)::int FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'shop-%'"
        )
        return {pid for (pid,) in cursor.fetchall()}


def test_every_promise_is_kept(environment: dict[str, str]) -> None:
    """A tick for every scene and for the balance, and no server left behind."""
    demo = subprocess.run(
        [*DEMO, "--once"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=2 * DEADLINE,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    for promise in (*SCENES, "In all, Alice paid once"):
        assert f"✓ {promise}" in demo.stdout
    assert "✗" not in demo.stdout
    assert max(map(len, demo.stdout.splitlines())) <= 80
    assert not is_listening(demo.stdout)


def test_sigterm_closes_the_shop(environment: dict[str, str], tmp_path: Path) -> None:
    """The command ends, and with it gunicorn's master and workers."""
    others = connected_processes()  # servers of other tests
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        demo = subprocess.Popen(DEMO, env=environment, stdout=output, stderr=output)
    try:
        eventually(lambda: "Ctrl-C closes the shop." in printed.read_text("utf-8"))
        workers = connected_processes() - others - {demo.pid}
        masters = {os.getpgid(pid) for pid in workers}
        assert workers
        assert len(masters) == 1

        demo.send_signal(signal.SIGTERM)

        assert demo.wait(DEADLINE) == 0
        eventually(lambda: not any(map(is_running, workers | masters)))
        assert "The shop is closing." in printed.read_text("utf-8")
        assert CLERK.password in printed.read_text("utf-8")
        assert not is_listening(printed.read_text("utf-8"))
    finally:
        demo.kill()
        demo.wait()
