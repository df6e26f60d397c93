"""The cron door to the purge: ``python manage.py purge_idempotency_keys``."""

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connections

from idempotency import database
from idempotency.models import IdempotencyKey, IdempotencyKeyQuerySet
from idempotency.purges import BATCH_SIZE, OVERDUE


class Command(BaseCommand):
    """Calls the verb `IdempotencyKeyQuerySet.purge`, and says what it did."""

    help = "Delete expired idempotency keys. Ctrl-C and SIGTERM end it after the current batch."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--batch-size",
            type=_whole,
            default=BATCH_SIZE,
            metavar="N",
            help=f"rows to delete in one transaction: {BATCH_SIZE}",
        )
        parser.add_argument(
            "--max-rows", type=_whole, metavar="N", help="rows to delete in all: no limit"
        )
        parser.add_argument(
            "--max-seconds",
            type=_seconds,
            metavar="N",
            help="seconds after which to stop: no limit",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")
        parser.add_argument(
            "--database", metavar="ALIAS", help="database of the keys: the one the router gives"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Purge, or count."""
        alias = options["database"] or database.alias()
        _refuse_others_than_postgresql(alias)
        keys = IdempotencyKey.objects.using(alias)
        self._deleted = 0
        try:
            self._tell_if_overdue(keys)
            if options["dry_run"]:
                count = _expired(keys, options["max_rows"])
                self.stdout.write(f"{_keys(count)} would be deleted.")
            else:
                self._purge(keys, options)
        except (DatabaseError, InterfaceError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            # Of the batch that was under way nobody here knows whether it was committed.
            done = f" At least {_keys(self._deleted)} had been deleted." if self._deleted else ""
            raise CommandError(f"{reason}.{done}") from error

    def _purge(self, keys: IdempotencyKeyQuerySet, options: dict[str, Any]) -> None:
        with _signals() as caught, self._progress(keys, options["max_rows"]) as show:

            def on_batch(rows: int) -> bool:
                self._deleted = rows
                show(rows)
                return bool(caught)

            purged = keys.purge(
                batch_size=options["batch_size"],
                max_rows=options["max_rows"],
                max_seconds=options["max_seconds"],
                on_batch=on_batch,
            )
        rest = "" if purged.is_complete else " Some are left for the next purge."
        self.stdout.write(f"Deleted {_keys(purged.rows)}.{rest}")
        self.stdout.flush()  # before what stderr is told: into a pipe it would come later
        if caught and not purged.is_complete:
            # What the signal asked for is done, but whoever chained commands must not go on.
            name = signal.Signals(caught[0]).name
            raise CommandError(f"Ended early by {name}.", returncode=128 + caught[0])

    def _tell_if_overdue(self, keys: IdempotencyKeyQuerySet) -> None:
        lag = keys.purge_lag()
        if lag > OVERDUE:
            self.stderr.write(
                f"The oldest key expired {lag.days} days ago: the purge has not run for too long, "
                "or does not keep up. See docs/purge.md for how to schedule it."
            )

    @contextmanager
    def _progress(
        self, keys: IdempotencyKeyQuerySet, max_rows: int | None
    ) -> Iterator[Callable[[int], object]]:
        """Give what moves the bar, which is drawn on a terminal where rich is installed."""
        if not self.stdout.isatty() or find_spec("rich") is None:
            yield lambda _rows: None
            return
        from rich import progress  # noqa: PLC0415  # optional

        with progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            transient=True,
        ) as bars:
            bar = bars.add_task("", total=_expired(keys, max_rows))
            yield lambda rows: bars.update(bar, completed=rows)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the first SIGINT or SIGTERM in place of obeying it; a second one is obeyed."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        restore()


def _refuse_others_than_postgresql(alias: str) -> None:
    if alias not in connections:
        raise CommandError(f"There is no database {alias!r}, only {', '.join(connections)}.")
    if connections[alias].vendor != "postgresql":
        raise CommandError(
            f"The database {alias!r} is {connections[alias].display_name}, but idempotency keys "
            "are kept in PostgreSQL. Name another one with --database."
        )


def _expired(keys: IdempotencyKeyQuerySet, max_rows: int | None) -> int:
    count = keys.expired().count()
    return count if max_rows is None else min(count, max_rows)


def _keys(count: int) -> str:
    return f"{count:,} expired idempotency key{'' if count == 1 else 's'}"


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1.")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0.")
    return number
