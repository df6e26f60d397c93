"""A PostgreSQL server of a test's own, and sessions on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import Any

from django.db import connection
from support import CHECKOUT, keep_session

from benchmarks.faults.server import Server
from testproject import postgres


@contextmanager
def own_server(**options: str) -> Iterator[Server]:
    """Start a server, and stop it in the end; its data is gone with it."""
    programs = postgres.programs(CHECKOUT / ".postgres")
    with TemporaryDirectory(prefix="shop-server-") as name:
        Path(name).chmod(0o711)
        folder = Path(name, "server")
        folder.mkdir(mode=0o711)
        server = Server(programs, folder, token_urlsafe(), options=options)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def connect_to(server: Server, port: int | None = None, **options: Any) -> None:
    """Connect this thread, until it ends, to a server, by another port if one is named."""
    keep_session()
    mine: Any = connection
    mine.settings_dict |= {"HOST": "127.0.0.1", "PORT": port or server.port, "NAME": "postgres"}
    mine.settings_dict |= {"USER": "shop", "PASSWORD": server.password, "ATOMIC_REQUESTS": False}
    mine.settings_dict["OPTIONS"] = {"sslmode": "disable", "gssencmode": "disable"} | options
