"""The log: one record of every covered request, at the level of what it means to an operator.

The records can be filtered and counted by their attributes: ``outcome``, ``operation``, ``scope``,
``key`` (its beginning only), ``attempt``, ``status_code``, ``waited`` and ``overhead``.
"""

import logging
from typing import Any

from .signals import Outcome

logger = logging.getLogger("idempotency")

_LEVELS = {
    Outcome.EXECUTED: logging.DEBUG,
    Outcome.REPLAYED: logging.INFO,
    Outcome.IN_PROGRESS: logging.INFO,
    Outcome.RESPONSE_NOT_KEPT: logging.INFO,
    Outcome.REFUSED: logging.INFO,
}
"""What is not here is a warning: a client's or the server's fault that somebody should look at."""

_SHOWN = 8


def record(
    outcome: Outcome, operation: str, key: str | None, status_code: int | None, **told: Any
) -> None:
    """Log one request, as told by the signal ``answered``. Nothing of its body is in the record."""
    level = _LEVELS.get(outcome, logging.WARNING)
    if outcome == Outcome.FAILED and status_code is not None and status_code < 500:
        level = logging.INFO  # a view that turns a request down is no news
    if not logger.isEnabledFor(level):
        return
    extra = {name: told[name] for name in ("scope", "attempt", "waited", "overhead")}
    extra |= {"outcome": outcome.value, "operation": operation, "status_code": status_code}
    extra["key"] = None if key is None else shortened(key)
    logger.log(level, "%s: %s", operation, outcome.value, extra=extra)


def shortened(key: str) -> str:
    """Give the beginning of a key: enough to find it by, and at most half of it."""
    return f"{key[: min(_SHOWN, len(key) // 2)]}…"
