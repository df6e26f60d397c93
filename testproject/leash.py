"""Start a program that ends when we do, however we end; and end one before that.

Linux does it: elsewhere the program outlives us if we are killed. This file is also what runs first
in the new process, as ``leash.py PARENT SIGNAL USER PROGRAM ...``, because code between fork and
exec is not safe in a process with threads.
"""

import ctypes
import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any


def spawn(
    command: Sequence[str | Path], end_with: Signals, *, user: str = "", **options: Any
) -> "subprocess.Popen[bytes]":
    """Start a program, which gets the signal ``end_with`` when the thread that called this ends.

    Args:
        command: The program's path and its arguments. A program that cannot be run exits with 127.
        user: Whose account it runs under, for root only; ours if empty.
        options: `subprocess.Popen`'s own.
    """
    leashed = [sys.executable, "-S", __file__, str(os.getpid()), str(int(end_with)), user]
    return subprocess.Popen([*leashed, *map(str, command)], **options)


def end(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Ask a program that leads a session of its own to end, and then end all that it has started.

    Raises:
        subprocess.TimeoutExpired: It had to be killed, after so many seconds.
    """
    process.terminate()
    try:
        process.wait(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, SIGKILL)
        process.wait()


def _run(parent: int, end_with: int, user: str, command: list[str]) -> None:
    """Become the program."""
    if user:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, end_with)  # PR_SET_PDEATHSIG, undone by a change of user
    if os.getppid() != parent:
        os._exit(1)
    try:
        os.execv(command[0], command)  # noqa: S606  # the caller's own command
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    _run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
