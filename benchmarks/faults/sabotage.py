"""The shop's WSGI application, with the promise broken on purpose if the environment says so.

The package knows nothing of it. To leave out the lock alone breaks nothing: the answer is saved
only in a row that has none yet, or all is rolled back. So that check is left out with it.
"""

import os

from django.db import connection

from idempotency import answers, claims, http, statements
from testproject.wsgi import application

__all__ = ["application"]

VARIABLE = "FAULTS_SABOTAGE"


def _skip_the_lock() -> None:
    statements.LOCK = statements.LOCK.replace("FOR UPDATE SKIP LOCKED", "")
    condition = "attempts = %s AND status = 'in_progress'"
    statements.COMPLETE = statements.COMPLETE.replace(condition, "%s::int IS NOT NULL")


def _save_outside() -> None:
    complete = claims.complete

    def commit_first(attempt: claims.Attempt, answer: answers.Answer) -> None:
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")
        complete(attempt, answer)

    claims.complete = commit_first


def _replay_across_users() -> None:
    http.scope = lambda *_: "everybody"


SABOTAGES = {
    "lock": _skip_the_lock,
    "save": _save_outside,
    "scope": _replay_across_users,
}

if _name := os.environ.get(VARIABLE):
    SABOTAGES[_name]()
