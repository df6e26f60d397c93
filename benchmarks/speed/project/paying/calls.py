"""Requests without a socket: calls the WSGI application, and prints how long each call took.

Reads lines of JSON, a list of keys each, and answers each with a line: the seconds of every call,
and what was answered.
"""

import json
import sys
from collections import Counter
from hashlib import sha256
from io import BytesIO
from time import perf_counter
from typing import Any

import django

django.setup()

from django.test import RequestFactory  # noqa: E402

from .wsgi import application  # noqa: E402


def _environ(key: str) -> dict[str, Any]:
    payment = {"reference": key, "amount": "12.50", "currency": "EUR", "card": "tok_visa"}
    body = json.dumps(payment).encode()
    environ: dict[str, Any] = (
        RequestFactory()
        .post(
            "/payments/",
            body,
            content_type="application/json",
            headers={"Idempotency-Key": key, "Authorization": "Bearer 1"},
        )
        .environ
    )
    return environ | {"wsgi.input": BytesIO(body)}  # Django's own cannot be asked for too much


def _call(key: str) -> tuple[float, int, str]:
    told: list[str] = []

    def start_response(status: str, *_: Any) -> None:
        told.append(status)

    environ = _environ(key)
    begin = perf_counter()
    answer: Any = application(environ, start_response)
    body = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    seconds = perf_counter() - begin
    return seconds, int(told[0][:3]), sha256(body).hexdigest()


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        calls = [_call(key) for key in json.loads(line)]
        seconds, statuses, digests = zip(*calls, strict=True)
        told = {"seconds": seconds, "statuses": Counter(statuses), "digests": digests}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
