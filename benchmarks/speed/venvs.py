"""A virtual environment for each variant, made once and kept in ``.benchmarks``."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.conf import settings

from .peers import COMMON, Peer

KEPT = settings.CHECKOUT / ".benchmarks" / "speed"

_TELL = """
import json, platform
from importlib.metadata import distributions
found = {it.metadata["Name"]: it.version for it in distributions()}
print(json.dumps({"Python": platform.python_version()} | found))
"""


class NotInstalled(Exception):
    """A variant could not be installed; the message says why."""


def interpreters(peers: Sequence[Peer]) -> dict[str, Path | NotInstalled]:
    """Give each variant's interpreter, or why there is none. Those that are there need no network.

    Variants with the same requirements, as the bare view's and ours, share one.
    """
    wanted = {peer.name: (*COMMON, *peer.requirements) for peer in peers}
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip({*wanted.values()}, pool.map(_try, {*wanted.values()}), strict=True))
    return {name: made[requirements] for name, requirements in wanted.items()}


def versions(python: Path) -> dict[str, str]:
    """Give the version of every package that an interpreter can import, and its own."""
    told = _run(python, "-I", "-c", _TELL)
    found: dict[str, str] = json.loads(told.stdout)
    return found


def _try(requirements: Sequence[str]) -> Path | NotInstalled:
    try:
        return _interpreter(requirements)
    except NotInstalled as error:
        return error


def _interpreter(requirements: Sequence[str]) -> Path:
    """Make the virtual environment, unless there is one.

    Raises:
        NotInstalled: pip did not succeed.
    """
    contents = json.dumps([sys.version, *requirements])
    folder = KEPT / hashlib.sha256(contents.encode()).hexdigest()[:16]
    python, done = folder / "bin" / "python", folder / "requirements.json"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)  # what was left half made
    _run(sys.executable, "-m", "venv", folder)
    _run(python, "-I", "-m", "pip", "install", "--quiet", *requirements)
    done.write_text(contents)
    return python


def _run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    ran = subprocess.run(command, capture_output=True, check=False, text=True)  # noqa: S603
    if ran.returncode:
        complaints = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalled("; ".join(complaints) or ran.stderr[-500:])
    return ran
