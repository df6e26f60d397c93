"""How the demonstration is printed: readable in 80 columns, in a pipe and without colours."""

from collections.abc import Iterable
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .scenes import Scene

COLUMNS = {"Customer, amount and key": 27, "Answer": 32, "Effect on account": 17}
"""Heads and widths."""


def make_console(out: IO[str], *, no_color: bool, force_color: bool) -> Console:
    """Make a console that prints texts as they are."""
    return Console(
        file=out,
        no_color=no_color,
        force_terminal=force_color or None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def show(scenes: Iterable[Scene], console: Console) -> list[Scene]:
    """Print every scene as soon as it ends; give back all of them."""
    shown = []
    console.print(_line(*COLUMNS, style="dim"))
    with console.status("Sending requests ...", spinner="line"):
        for scene in scenes:
            _show(scene, console)
            shown.append(scene)
    return shown


def _show(scene: Scene, console: Console) -> None:
    tick, cross = ("ok", "WRONG") if console.options.ascii_only else ("✓", "✗")
    mark = (tick, "bold green") if scene.is_right else (cross, "bold red")
    console.print(Text.assemble(mark, (f" {scene.promise}", "bold")))
    for step in scene.steps:
        style = "" if step.is_right else "red"
        console.print(_line(step.sent, step.answer, step.effect, style=style))
        if not step.is_right:
            console.print(_line("  should have been", *step.expected, style=style))
    if scene.failure:
        console.print(f"  {scene.failure}", style="red")


def _line(*texts: str, style: str) -> Table:
    # A grid for each line, because the promises between them take the whole width.
    line = Table.grid(padding=(0, 1))
    for width in (1, *COLUMNS.values()):
        line.add_column(width=width)
    line.add_row("", *texts, style=style)
    return line
