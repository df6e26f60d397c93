"""A session beside the proxy that asks again, whatever happens to the server."""

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg

from .server import Server, Session

_PATIENCE = 30.0
"""Seconds until an answer, and until a key is free."""


class Observer:
    """Asks the server that is the primary now. For one thread, as a context manager."""

    def __init__(self, primary: Callable[[], Server]) -> None:
        self._primary = primary
        self._session: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def ask(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows of a query, which may be sent more than once."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if self._session is None:
                    # Its commits must not carry to the disk what a crash would lose.
                    self._session = self._primary().connect("off")
                return self._session.execute(sql, values).fetchall()
            except psycopg.OperationalError:
                self._close()
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def wait_until(self, sql: str, *values: object, seconds: float = _PATIENCE) -> bool:
        """Wait until a query has a row; False where it has none after that time."""
        began = time.monotonic()
        while not self.ask(sql, *values):
            waited = time.monotonic() - began
            if waited > seconds:
                return False
            time.sleep(0.002 if waited < 0.2 else 0.01)
        return True

    def wait_until_free(self, key: str) -> None:
        """Wait until no transaction holds a key's row, or it is not there.

        Raises:
            TimeoutError: One still does after 30 seconds.
        """
        free = (
            "SELECT 1 WHERE EXISTS (SELECT FROM idempotency_key WHERE id = %s FOR KEY SHARE"
            " SKIP LOCKED) OR NOT EXISTS (SELECT FROM idempotency_key WHERE id = %s)"
        )
        if not self.wait_until(free, key, key):
            raise TimeoutError(f"The row {key} is still locked.")

    def _close(self) -> None:
        if self._session:
            with suppress(psycopg.Error):
                self._session.close()
            self._session = None
