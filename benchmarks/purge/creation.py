"""How many keys a second the shop creates on this machine, over HTTP."""

import os
from http import HTTPStatus

import k9
import k9.plan as p

from benchmarks import database
from benchmarks.traffic import ACCOUNTS
from testproject.shop.demonstration.server import serve

_CONNECTIONS = 16


def keys_a_second(seconds: int) -> float:
    """Let k9 pay for a while, as fast as gunicorn's workers answer, and count the keys.

    Raises:
        RuntimeError: Some payments were not answered 201.
    """
    with serve(0, workers=os.cpu_count() or 1) as server:
        payment = p.post(
            f"{server.url}/payments/",
            json={"amount": "12.50", "currency": "EUR", "card": "tok_visa"},
            headers={
                "Idempotency-Key": p.uuid(),
                "Authorization": f"Bearer account-{p.random_int(0, ACCOUNTS - 1)}",
            },
            checks={"paid": p.status(HTTPStatus.CREATED)},
        )
        plan = p.Plan([payment])
        k9.run(plan, vus=_CONNECTIONS, duration=1)  # whatever is slow only once
        before = _keys()
        result = k9.run(plan, vus=_CONNECTIONS, duration=seconds)
        if result.checks_failed:
            raise RuntimeError(f"{result.checks_failed} payments failed.\n{result.stdout}")
        return (_keys() - before) / seconds


def _keys() -> int:
    return int(database.value("SELECT count(*) FROM shop_payment"))
