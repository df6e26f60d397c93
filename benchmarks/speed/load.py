"""Requests through HTTP: k9 sends them over a few connections that stay open, and times them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import k9
import k9.plan as p

_TIME = "http_req_duration"
"""From the first byte sent to the last one received: what the client does before is not in it."""


def burst(url: str, keys: Sequence[str], connections: int, folder: Path) -> list[float]:
    """Send a payment for each key, each as soon as its connection is free.

    Returns:
        The seconds that each took.

    Raises:
        AssertionError: One was not answered 201.
    """
    samples = folder / "samples.jsonl"
    feeder = p.feeder("keys", rows=[{"key": key} for key in keys])
    pay = p.post(
        f"{url}/payments/",
        json={"reference": feeder.key, "amount": "12.50", "currency": "EUR", "card": "tok_visa"},
        headers={"Idempotency-Key": feeder.key, "Authorization": "Bearer 1"},
    )
    plan = p.Plan(
        flows={"default": [pay]},
        options={"vus": connections, "iterations": len(keys)},
        feeders=[feeder],
    )
    k9.run(plan, check_thresholds=False, args=("--quiet", "--out", f"json={samples}"))
    with samples.open() as lines:
        points = [it["data"] for it in map(json.loads, lines) if _is_time(it)]
    statuses = {point["tags"].get("status") for point in points}
    if statuses != {"201"} or len(points) != len(keys):
        raise AssertionError(f"{len(points)} of {len(keys)} were answered, with {statuses}")
    return [point["value"] / 1000 for point in points]


def _is_time(line: dict[str, Any]) -> bool:
    return bool(line["metric"] == _TIME and line["type"] == "Point")
