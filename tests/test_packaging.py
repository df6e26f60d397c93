"""What is published: it builds, installs into an empty environment, and works as the site says."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from reading import blocks, shell
from support import CHECKOUT, free_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

DATA = {
    "py.typed",
    "locale/de/LC_MESSAGES/django.mo",
    "migrations/0001_initial.py",
    "static/idempotency/admin.css",
    "static/idempotency/browsable.js",
    "templates/admin/idempotency/idempotencykey/dashboard.html",
    "templates/idempotency/policy.html",
    "templates/idempotency/problem.html",
}


def run(*command: Any, **options: Any) -> str:
    """Run a command that must end well, and give what it printed."""
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, and give the folder with both."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, CHECKOUT)
    return folder


@pytest.fixture(scope="module")
def wheel(published: Path) -> Path:
    """Give the wheel."""
    (path,) = published.glob("*.whl")
    return path


def test_both_are_fit_to_be_uploaded(published: Path) -> None:
    """The index takes them, and can render their description."""
    printed = run(sys.executable, "-m", "twine", "check", "--strict", *sorted(published.iterdir()))

    assert printed.count("PASSED") == 2


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """With all that Python does not find by itself; every file of the package is in it."""
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name.removeprefix("idempotency/") for name in names if ".dist-info/" not in name}
    package = CHECKOUT / "idempotency"
    files = {
        str(path.relative_to(package))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert packed >= DATA
    assert packed == files


def test_the_sdist_has_what_the_tests_need(published: Path) -> None:
    """Whoever packages it for a distribution can run them."""
    (path,) = published.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    wanted = {"setup.cfg", "manage.py", "README.md", "LICENSE", "tests/conftest.py"}
    wanted |= {"testproject/settings.py", "docs/conf.py", "docs/index.md", "benchmarks/__init__.py"}
    assert wanted <= names
    assert not [name for name in names if name.startswith(("docs/_build", ".postgres"))]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give variables that send a new project to a database of its own, which libpq reads."""
    settings = connection.settings_dict
    names = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD"}
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    found = {variable: str(settings[name]) for name, variable in names.items() if settings[name]}
    return {**ours, **found, "PATH": f"{tmp_path}/.venv/bin:{os.environ['PATH']}"}


@pytest.fixture
def database(django_db_blocker: Any) -> Iterator[str]:
    """Give the name of an empty database, which is dropped afterwards."""
    name = f"site_{os.getpid()}"
    quoted = connection.ops.quote_name(name)
    drop = f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)"
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(drop)
        cursor.execute(f"CREATE DATABASE {quoted}")
    yield name
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        for dropped in (drop, drop.replace(name, f"test_{name}")):
            cursor.execute(dropped)


def test_the_app_alone_works(
    wheel: Path, tmp_path: Path, environment: dict[str, str], database: str
) -> None:
    """In an empty environment with Django and psycopg, and neither framework nor Celery."""
    python = tmp_path / ".venv/bin/python"
    run(sys.executable, "-m", "venv", tmp_path / ".venv")
    run(python, "-m", "pip", "install", "-q", wheel, "psycopg[binary]")
    run(python, "-m", "django", "startproject", "shop", tmp_path, env=environment)
    ours = {"ENGINE": "django.db.backends.postgresql", "NAME": database}
    settings = tmp_path / "shop/settings.py"
    lines = [f"DATABASES = {{'default': {ours}}}", "INSTALLED_APPS += ['idempotency']"]
    settings.write_text("\n".join([settings.read_text(), *lines]))

    def manage(*arguments: str) -> str:
        return run(python, "manage.py", *arguments, cwd=tmp_path, env=environment)

    manage("migrate")
    assert "no issues" in manage("check")
    assert "Deleted 0 expired" in manage("purge_idempotency_keys")
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")
    code = "import idempotency.decorators, idempotency.test, idempotency.views, idempotency.admin"
    manage("shell", "-c", code)
    installed = run(python, "-m", "pip", "list")
    assert not re.search("celery|djangorestframework", installed)


def write_files(page: str, folder: Path, **names: str) -> None:
    """Write the files that a page has, whose path is in their first line."""
    for block in blocks("python", page=page):
        first = re.match(r"# (\S+\.py)(, at its end)?\n", block.code)
        assert first, block
        path = folder / first[1]
        before = path.read_text() if first[2] else ""
        code = block.code
        for name, value in names.items():
            code = code.replace(name, value)
        path.write_text(before + code)


def test_a_project_of_ones_own_works_as_the_site_says(
    wheel: Path, tmp_path: Path, environment: dict[str, str], database: str
) -> None:
    """A new user types what stands on the page, and gets what it says, the passing test too."""
    folder = tmp_path / "shop-project"
    folder.mkdir()
    install = f"pip install -q '{wheel}[drf,beat]' 'psycopg[binary]'"
    name = {'"NAME": "shop"': f'"NAME": "{database}"'}

    def begin() -> None:
        bash.run("python manage.py startapp payments")
        write_files("start.md", folder, **name)

    with shell(folder, environment) as bash:
        instead = {
            "mkdir shop-project": None,  # it is there, and we are in it
            "pip install": lambda: bash.run(install),  # what is not published yet
            "createdb": None,  # without its program; see the fixture
            "python manage.py startapp": begin,
            "celery": None,  # needs a broker; test_celery.py runs worker and beat
        }
        bash.play("start.md", instead, **{"127.0.0.1:8000": f"127.0.0.1:{free_port()}"})
