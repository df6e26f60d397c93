"""The variants at work: their tables, and servers or processes that answer."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from benchmarks import database
from testproject import leash

from .peers import OURS, Peer

_PROJECT = Path(__file__).resolve().parent / "project"
_HOST: Final = "127.0.0.1"
_START = 30.0
"""Seconds a server has to start."""


@dataclass(frozen=True, slots=True)
class Place:
    """A variant with tables of its own, which can be run."""

    peer: Peer
    python: Path
    """The interpreter of its virtual environment."""
    folder: Path
    """For logs and the like."""
    redis: str = ""
    """URL of the Redis, for who keeps answers there."""
    more: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What of the environment is another than usual."""

    @property
    def stop(self) -> Path:
        """A file that is there while a request has stopped, see ``paying.stops``."""
        return self.folder / f"{self.peer.name}.stop"

    def workers(self) -> set[int]:
        """Give the process ids of its server's workers, but of those that are still starting."""
        return {int(file.suffix[1:]) for file in self.folder.glob(f"{self.stop.name}.[0-9]*")}

    def kill(self, worker: int) -> None:
        """End a worker at once."""
        os.kill(worker, signal.SIGKILL)
        self.stop.with_name(f"{self.stop.name}.{worker}").unlink()

    @property
    def environment(self) -> dict[str, str]:
        """What the project asks for."""
        paths = [_PROJECT, settings.CHECKOUT] if self.peer.name == OURS else [_PROJECT]
        usual = {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "DJANGO_SETTINGS_MODULE": "paying.settings",
            "SPEED_VARIANT": self.peer.name,
            "SPEED_SCHEMA": self.peer.schema,
            "SPEED_STOPS": str(self.stop),
            "SPEED_REDIS": self.redis,
            "GUNICORN_CMD_ARGS": "",
            "XDG_RUNTIME_DIR": str(self.folder),  # for gunicorn's control socket
        }
        return {**os.environ, **usual, **self.more}

    def spawn(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a module of Python in the virtual environment; it ends with us."""
        with self.log.open("ab") as log:
            files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            return leash.spawn(
                [self.python, "-m", *arguments],
                signal.SIGTERM,
                **files | options,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """Where its processes complain."""
        return self.folder / f"{self.peer.name}.log"

    def complaint(self) -> str:
        """Give the end of the log."""
        return f"{self.peer.name}: {self.log.read_text(errors='replace').strip()[-1500:]}"

    def create_tables(self) -> None:
        """Create them, and two users.

        Raises:
            ChildProcessError: It does not start.
        """
        database.execute(f'CREATE SCHEMA "{self.peer.schema}"')
        if self.spawn("paying.tables").wait():
            raise ChildProcessError(self.complaint())
        database.execute(
            f"INSERT INTO {self.peer.schema}.auth_user (id, username, password, is_superuser,"
            " is_staff, is_active, first_name, last_name, email, date_joined)"
            " SELECT n, 'user-' || n, '', false, false, true, '', '', '', now()"
            " FROM generate_series(1, 2) AS n"
        )

    def payments(self, reference: str = "%") -> int:
        """Count the payments with a reference like this."""
        sql = f"SELECT count(*) FROM {self.peer.schema}.paying_payment WHERE reference LIKE %s"
        return int(database.value(sql, [reference]))


@contextmanager
def serve(place: Place, workers: int, threads: int) -> Iterator[str]:
    """Serve a variant by gunicorn, and give its URL.

    Raises:
        ChildProcessError: It does not start.
    """
    with socket.create_server((_HOST, 0)) as listener:
        number = listener.fileno()  # handed over, so that nobody can take the port meanwhile
        master = place.spawn(
            *("gunicorn", "paying.wsgi", "--config=python:paying.serving"),
            *(f"--bind=fd://{number}", f"--workers={workers}", f"--threads={threads}"),
            pass_fds=[number],
        )
        port = listener.getsockname()[1]
    try:
        _wait_for_answer(port, place)
        yield f"http://{_HOST}:{port}"
    finally:
        for worker in place.workers():
            place.stop.with_name(f"{place.stop.name}.{worker}").unlink()
        leash.end(master, _START)


def _wait_for_answer(port: int, place: Place) -> None:
    # The socket listens already: the request waits there until a worker comes, or all have failed.
    with closing(HTTPConnection(_HOST, port, timeout=_START)) as http:
        try:
            http.request("GET", "/")
            http.getresponse()
        except (OSError, HTTPException) as error:
            raise ChildProcessError(place.complaint()) from error
