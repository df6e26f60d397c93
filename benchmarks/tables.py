"""How results are printed: in Markdown, so that the documentation can show them as they are."""

import argparse
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import database

# Wide enough for every table, whatever the terminal is.
console = Console(width=160, markup=False, emoji=False, highlight=False)


def at_least(least: int) -> Callable[[str], int]:
    """Give a type for `argparse`: a whole number that is not below a limit."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
        return value

    return number


def begin(arguments: argparse.Namespace) -> None:
    """Print what is measured, on what, and with which arguments."""
    console.print(database.versions())
    for name, value in vars(arguments).items():
        texts = map(str, value if isinstance(value, list) else [value])
        console.print(f"{name}: {'; '.join(texts)}")


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column is text, the others are figures."""
    table = Table(box=box.MARKDOWN)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(_figure, row))
    console.print(f"\n{title}", style="bold")
    console.print(table)


def progress(steps: Sequence[int], what: str) -> Iterable[int]:
    """Show how far a loop has come, on a terminal."""
    return track(steps, what, console=console, transient=True, disable=not console.is_terminal)


def _figure(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
