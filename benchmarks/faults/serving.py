"""gunicorn's configuration: workers that start at once, and connections that tell their pid."""

import os
from typing import Any

VARIABLE = "FAULTS_SERVER"
"""Of the environment: which of `KINDS` it is; none where this is only read."""

KINDS: dict[str, dict[str, Any]] = {
    "threads": {"worker_class": "gthread", "workers": 3, "threads": 8},
    "asyncio": {
        "worker_class": "asgi",
        "workers": 2,
        "wsgi_app": "testproject.asgi:application",
        # Longer than the pool waits: a request that is cancelled in between takes its connection
        # out of the pool for ever, whatever the view is.
        "asgi_disconnect_grace_period": 60,
    },
    # A worker whose one request takes longer is ended in the middle of it, by an exception.
    "single": {"worker_class": "sync", "workers": 4, "timeout": 1},
}

wsgi_app = "testproject.wsgi:application"
preload_app = True
graceful_timeout = 3
loglevel = "critical"
control_socket_disable = True
globals().update(KINDS.get(os.environ.get(VARIABLE, ""), {}))


def post_fork(_server: Any, _worker: Any) -> None:
    """Name the worker's connections by its own pid, not that of the process it was forked from."""
    from django.db import connections  # noqa: PLC0415  # once Django is set up

    from . import clock, sabotage  # noqa: PLC0415

    settings = connections.settings["default"]
    settings["OPTIONS"]["application_name"] = f"shop-{os.getpid()}"
    settings["CONN_HEALTH_CHECKS"] = os.environ[VARIABLE] != "single"  # both happen
    clock.put_off()
    sabotage.apply()
