"""Where a request stops to be killed, if its header ``Stop-At`` says so."""

import os
import time
from pathlib import Path

HEADER = "Stop-At"
ENVIRON = "HTTP_STOP_AT"


def pass_by(point: str, asked: str | None) -> None:
    """Stay here, if this is where the request was asked to stop, until the file is taken away.

    The file tells the benchmark which process it is.
    """
    if asked != point:
        return
    file = Path(os.environ["SPEED_STOPS"])
    new = file.with_suffix(".new")
    new.write_text(str(os.getpid()))
    new.rename(file)
    while file.exists():
        time.sleep(0.005)
