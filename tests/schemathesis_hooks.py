"""What Schemathesis does not try, and why: loaded by its command line in test_schemathesis."""

from typing import Any

import schemathesis

NOT_TRIED = {"tok_slow", "tok_error", "tok_returns_500"}
"""A card that pays after 3 s, and two that fail on purpose and have a test of their own: so any 500
that is found is a defect."""


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Pay with another card."""
    if isinstance(body, dict) and body.get("card") in NOT_TRIED:
        return body | {"card": "tok_visa"}
    return body
