"""gunicorn's configuration: workers that start at once, and connections that tell their pid."""

import os
from typing import Any

wsgi_app = "benchmarks.faults.sabotage:application"
worker_class = "gthread"
workers = 3
threads = 6
preload_app = True
graceful_timeout = 3
loglevel = "error"


def post_fork(_server: Any, _worker: Any) -> None:
    """Give the worker's connections its own pid, not that of the process it was forked from."""
    from django.db import connections  # noqa: PLC0415  # once Django is set up

    options = connections.settings["default"]["OPTIONS"]
    options["application_name"] = f"shop-{os.getpid()}"
