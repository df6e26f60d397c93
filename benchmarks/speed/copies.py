"""Databases beside our own, as copies of it, for measurements that need several of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection
from psycopg.conninfo import make_conninfo

from benchmarks import database


@dataclass(frozen=True, slots=True)
class Copy:
    """A database in which the tables of one schema are found."""

    name: str

    def url(self, **other: str | int) -> str:
        """Give what libpq needs to connect to it, some of it otherwise than usual."""
        return make_conninfo(os.environ["DATABASE_URL"], dbname=self.name, **other)

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Let our own statements go there."""
        usual = connection.settings_dict["NAME"]
        _turn(self.name)
        try:
            yield
        finally:
            _turn(usual)


@contextmanager
def copied(mark: str, schema: str) -> Iterator[Copy]:
    """Copy our database as it is, and drop the copy in the end.

    Args:
        mark: What is added to its name.
        schema: Where whoever connects finds tables.
    """
    ours = connection.settings_dict["NAME"]
    copy = Copy(f"{ours}_{mark}")
    try:
        database.execute(f'CREATE DATABASE "{copy.name}" TEMPLATE "{ours}"')
        database.execute(f'ALTER DATABASE "{copy.name}" SET search_path = "{schema}"')
        yield copy
    finally:
        database.execute(f'DROP DATABASE IF EXISTS "{copy.name}" WITH (FORCE)')


def _turn(name: str) -> None:
    connection.close()
    connection.settings_dict["NAME"] = name
