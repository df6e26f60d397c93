"""How gunicorn serves it; the benchmark says with how many workers and threads."""

import os
from pathlib import Path
from typing import Any

worker_class = "gthread"
keepalive = 60
graceful_timeout = 1
timeout = 600  # requests that stop are not to be killed by gunicorn


def post_worker_init(worker: Any) -> None:
    """Tell the benchmark that there is one more worker."""
    Path(f"{os.environ['SPEED_STOPS']}.{worker.pid}").touch()
