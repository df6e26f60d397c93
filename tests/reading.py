"""Reads the documentation as its readers do: block by block, and typing what stands after a $."""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import CHECKOUT, DEADLINE

DOCS = CHECKOUT / "docs"
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Code between two fences."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """Give the blocks of some languages, or of all; on all pages, or on one."""
    found = []
    for path in PAGES:
        text = path.read_text("utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            if not match[1].startswith("{"):  # a directive, which is for Sphinx
                found.append(Block(path, line, match[1], match[2]))
    return [
        block
        for block in found
        if (not languages or block.language in languages) and page in {None, block.page.name}
    ]


def steps(block: Block) -> Iterator[tuple[str, str]]:
    """Give each command of a transcript, and what is printed after it."""
    for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output.strip()


def looks_like(expected: str, output: str) -> bool:
    """Tell whether an output is as a page has it, where … stands for anything."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None


class Shell:
    """A bash that is typed into, one command after the other."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def run(self, command: str) -> str:
        """Run a command, and give what it printed; it must end well."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(f"{command}\necho; echo end $?\n".encode())
        stdin.flush()
        printed, deadline = b"", time.monotonic() + 4 * DEADLINE
        while not (end := re.search(rb"\nend (\d+)\n$", printed)):
            assert time.monotonic() < deadline, f"{command}\n{printed.decode()}"
            if select.select([stdout], [], [], 1)[0]:
                printed += stdout.read1() or b"\nend 1\n"  # type: ignore[attr-defined]
        output = printed[: end.start()].decode().replace("\r\n", "\n")  # as a terminal shows it
        assert end[1] == b"0", f"{command}\n{output}"
        return output

    def play(self, page: str, instead: dict[str, Callable[[], Any] | None], **names: str) -> None:
        """Type all that a page says, and compare what comes with what the page says.

        Args:
            instead: What to do for the commands that begin so; None stands for nothing.
            names: What to put for words of the page.
        """
        for block in blocks("console", page=page):
            for command, expected in steps(block):
                begin = next((begin for begin in instead if command.startswith(begin)), None)
                if begin is not None:
                    act = instead[begin]
                    _ = act and act()
                    continue
                for name, value in names.items():
                    command = command.replace(name, value)  # noqa: PLW2901
                    expected = expected.replace(name, value)  # noqa: PLW2901
                output = self.run(command)
                assert looks_like(expected, output), f"{block}\n$ {command}\n{output}"


@contextmanager
def shell(folder: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """Start a bash in a folder; whatever it has started ends with it."""
    with subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield Shell(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
