"""The tutorial, typed as it stands."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from reading import shell
from support import CHECKOUT, database_url, eventually, free_port, workers_in_mid_payment

from idempotency.models import IdempotencyKey
from testproject.shop.models import Account

pytestmark = pytest.mark.slow


def test_the_shop_behaves_as_the_tutorial_says(committed: None, tmp_path: Path) -> None:
    """Every command does what the page says, on a shop that its own commands have opened."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("manage.py", "testproject", "idempotency"):
        (folder / name).symlink_to(CHECKOUT / name)
    programs = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    environment = {**os.environ, "PATH": programs, "DATABASE_URL": database_url()}
    environment["XDG_RUNTIME_DIR"] = str(tmp_path)
    assert shutil.which("curl"), "The tutorial needs curl: 'apt-get install curl'."
    instead = {
        "python3 -m venv": None,  # what the tests run in
        "sleep 1": lambda: eventually(workers_in_mid_payment),
    }

    with shell(folder, environment) as bash:
        bash.play("tutorial.md", instead, **{"127.0.0.1:8000": f"127.0.0.1:{free_port()}"})

    assert IdempotencyKey.objects.get(key="second").attempts == 2
    assert str(Account.objects.get(token="alice-token").balance) == "947.50"
