"""Requests through HTTP: k9 sends them over a few connections that stay open, and times them."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import k9
import k9.plan as p

from .ratios import Turn

_TIME = "http_req_duration"
"""From the first byte sent to the last one received: what the client does before is not in it."""


def in_turns(
    urls: Mapping[str, str], turns: Sequence[Turn], keys: Sequence[str], connections: int, to: Path
) -> Mapping[Turn, list[float]]:
    """Send, over each connection and for each key, one request after another in their turns.

    Args:
        urls: By the variant's name.
        keys: Of payments; each connection takes the next when it has had all turns of the last.
        to: A folder for what k9 tells.

    Returns:
        The seconds that each took.

    Raises:
        AssertionError: One was not answered 201.
    """
    samples = to / "samples.jsonl"
    feeder = p.feeder("keys", rows=[{"key": key} for key in keys])
    plan = p.Plan(
        flows={"default": [_payment(urls[turn.name], feeder.key, turn) for turn in turns]},
        options={"vus": connections, "iterations": len(keys)},
        feeders=[feeder],
    )
    k9.run(plan, check_thresholds=False, args=("--quiet", "--out", f"json={samples}"))
    found: defaultdict[Turn, list[float]] = defaultdict(list)
    with samples.open() as lines:
        for line in map(json.loads, lines):
            if line["metric"] == _TIME and line["type"] == "Point":
                tags = line["data"]["tags"]
                turn = Turn(tags["variant"], tags["kind"])
                if tags.get("status") != "201":
                    raise AssertionError(f"{turn} was answered {tags.get('status')}")
                found[turn].append(line["data"]["value"] / 1000)
    for turn in turns:
        if len(found[turn]) != len(keys):
            raise AssertionError(f"{turn} had {len(found[turn])} of {len(keys)} answers")
    return found


def _payment(url: str, key: Any, turn: Turn) -> Any:
    return p.post(
        f"{url}/payments/",
        json={"reference": key, "amount": "12.50", "currency": "EUR", "card": "tok_visa"},
        headers={"Idempotency-Key": key, "Authorization": "Bearer 1"},
        tags={"variant": turn.name, "kind": turn.kind},
    )
