"""How a payment is written down: in one of the ways that a client may write it."""

import random
from typing import Any


def arguments(key: str, amount: int) -> dict[str, Any]:
    """Return what httpx needs for a payment as JSON, a form, or a multipart form, with a file.

    The key decides which, and what is in the file, so that each retry is the same request. What a
    cut takes away first is in the end: the amount, whose beginning is an amount, or the file.
    """
    chance = random.Random(key)  # noqa: S311  # repeatable, not secret
    fields = {"currency": "EUR", "card": "tok_visa", "amount": f"{amount / 100:.2f}"}
    parts = {name: (None, value) for name, value in fields.items()}
    receipt = ("receipt.bin", chance.randbytes(chance.randrange(20_000, 60_000)))
    return chance.choice(
        [
            {"json": fields},
            {"data": fields},
            {"files": parts},
            {"files": parts | {"receipt": receipt}},
        ]
    )
