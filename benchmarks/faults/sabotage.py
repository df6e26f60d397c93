"""Breaks the promise on purpose in a worker of the shop, if the environment says so.

The package knows nothing of it. To leave out the lock alone breaks nothing: the answer is saved
only in a row that has none yet, or all is rolled back. So that check is left out with it.
"""

import os

from django.db import connection
from django.utils import timezone

from idempotency import answers, bodies, claims, database, http, statements

VARIABLE = "FAULTS_SABOTAGE"


def _skip_the_lock() -> None:
    statements.LOCK = statements.LOCK.replace("FOR UPDATE SKIP LOCKED", "")
    condition = "attempts = %s AND status = 'in_progress'"
    statements.COMPLETE = statements.COMPLETE.replace(condition, "%s::int IS NOT NULL")


def _save_outside() -> None:
    complete = claims.complete

    def commit_first(attempt: claims.Attempt, answer: answers.Answer) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")
        return complete(attempt, answer)

    claims.complete = commit_first


def _replay_across_users() -> None:
    http.scope = lambda *_: "everybody"


def _commit_without_fsync() -> None:
    """Treat the effects and the answer as the claim is treated."""
    statements.COMPLETE = f"SET LOCAL synchronous_commit = off; {statements.COMPLETE}"


def _trust_the_clock() -> None:
    """Judge by the app's clock, and not by the database's, whether a key has expired."""
    read = statements.READ

    def judged(claim: claims.Claim, first_look: str | None) -> claims._Standing | None:
        now = f"'{timezone.now().isoformat()}'::timestamptz"
        values = (first_look, claim.users, claim.id)
        row = database.fetch(read.replace("statement_timestamp()", now), values)
        return claims._Standing(*row) if row else None  # noqa: SLF001

    claims._read = judged  # noqa: SLF001
    condition = " AND expires_at <= statement_timestamp()"
    statements.TAKE_OVER = statements.TAKE_OVER.replace(condition, "")


def _take_parts() -> None:
    """Take what has arrived of a body for the whole."""
    bodies.refuse_incomplete = lambda *_, **__: None


def _skip_the_standby() -> None:
    """Replay what no standby has confirmed."""
    claims.confirm = lambda: None


SABOTAGES = {
    "lock": _skip_the_lock,
    "save": _save_outside,
    "scope": _replay_across_users,
    "fsync": _commit_without_fsync,
    "clock": _trust_the_clock,
    "whole": _take_parts,
    "confirm": _skip_the_standby,
}


def apply() -> None:
    """Break what the environment names."""
    if name := os.environ.get(VARIABLE):
        SABOTAGES[name]()
