"""Starts programs that end when we do, and finds ports for them."""

import secrets
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import Signals

import httpx
from django.conf import settings

from testproject import leash, postgres

START = 60.0
"""Seconds that a process has to start, and to end."""

Process = subprocess.Popen[bytes]

_STARTER = ThreadPoolExecutor(1)
"""Starts them all, because Linux ends a leashed process with the thread that started it."""


def leashed(
    command: list[str],
    log: Path,
    end_with: Signals,
    *,
    user: str = "",
    environment: dict[str, str],
) -> Process:
    """Start a program whose output goes to a file, and that gets a signal when we end."""
    with log.open("ab") as output:
        return _STARTER.submit(
            leash.spawn,
            command,
            end_with,
            user=user,
            cwd="/" if user else settings.CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ).result()


def unprivileged(
    *command: object, log: Path, end_with: Signals, environment: dict[str, str] | None = None
) -> Process:
    """Start a program that refuses to run as root: as nobody, if we are root."""
    environment = {"LC_ALL": "C"} | (environment or {})
    return leashed(
        [*map(str, command)], log, end_with, user=postgres.ACCOUNT, environment=environment
    )


def write(path: Path, text: str) -> None:
    """Write a file that only such a program and we can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    if postgres.ROOT:
        shutil.chown(path, postgres.ACCOUNT)


def free_port() -> int:
    """Return a port that nothing listens on."""
    chance = secrets.SystemRandom()
    while True:
        port = chance.randrange(20_000, 32_000)  # below the ports that clients are given
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def await_answer(url: str, server: Process) -> None:
    """Wait until a server has started, and answers."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(httpx.TransportError):
            httpx.get(url, timeout=START)
            return
        time.sleep(0.05)
    raise ChildProcessError("The server did not start.")
