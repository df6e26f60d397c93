"""The clock of the shop's host, which a fault sets hours ahead or behind.

A worker's Python sees a clock that is off by what a file says at the moment.
"""

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

VARIABLE = "FAULTS_CLOCK"
"""Of the environment: the file, in which the seconds stand."""


def put_off() -> None:
    """Put this process's clock off."""
    path, real_time, real_now = Path(os.environ[VARIABLE]), time.time, timezone.now

    def seconds() -> float:
        return float(path.read_text())

    time.time = lambda: real_time() + seconds()
    timezone.now = lambda: real_now() + timedelta(seconds=seconds())


def set_off(path: Path, seconds: float) -> None:
    """Set by how much the clocks are off from now on; from any thread."""
    new = path.with_suffix(f".{threading.get_ident()}")
    new.write_text(str(seconds))
    new.replace(path)
