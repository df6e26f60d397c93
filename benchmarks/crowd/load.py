"""What the clients do: first requests, retries after the answer, and two copies at once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import k9
import k9.plan as p

from benchmarks.traffic import ACCOUNTS

MIX = {"single": 0.40, "retried": 0.15, "doubled": 0.15}
"""Keys of each kind for one request: of 100 requests 70 are first ones, 15 are retries of a key
that was answered, and 15 come at the same moment as another copy of theirs."""

_CONNECTIONS = {"single": 1, "retried": 1, "doubled": 2}
_AT_ONCE = {name: MIX[name] * _CONNECTIONS[name] for name in MIX}
"""Connections of each kind that send the mix, if all requests take as long."""

BARE_CURRENCY = "USD"
"""Of payments without a key; all others are in euros."""

FAILURES = ("0", "500", "502", "503", "504")
"""What no client should see; 0 where there was no answer."""
_PERCENTILES = ("med", "p(99)", "max")

_MEASURE = {"constant-arrival-rate": "iteration_duration_corrected"}
"""What is told where there is a moment at which a client meant to send; else from its beginning."""

COMING = 15
"""Seconds in which the clients connect that are to be there when the load begins."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What k9 measured."""

    requests: int
    a_second: float
    """Requests, until the last answer."""
    by_status: dict[str, int]
    milliseconds: dict[str, dict[str, float]]
    """Median, p99 and maximum of each kind of client: where they come at a rate, from the moment
    one meant to send until its last answer."""
    unsent: int
    """Iterations that no client was free for."""


def total(parts: Sequence[Outcome]) -> Outcome:
    """Add up the answers of several runs, whose times are left out."""
    counted: Counter[str] = Counter()
    for part in parts:
        counted.update(part.by_status)
    requests = sum(part.requests for part in parts)
    return Outcome(requests, 0, dict(counted), {}, sum(part.unsent for part in parts))


def greedy(url: str, connections: int, seconds: int) -> Outcome:
    """Send the mix over as many connections, each as soon as it has been answered."""
    # Who sends two requests one after the other takes twice as long, and needs twice the clients.
    clients = MIX | {"retried": 2 * MIX["retried"]}
    scenarios = {
        name: {
            "executor": "constant-vus",
            "vus": max(1, round(connections * share)),
            "duration": f"{seconds}s",
            "exec": name,
        }
        for name, share in clients.items()
    }
    return _run(_flows(url), scenarios)


def steady(
    url: str, connections: int, payers: int, requests_a_second: float, seconds: int
) -> Outcome:
    """Send requests at a rate that does not depend on the answers, over many open connections.

    Args:
        connections: Those that are used before the load begins, and again when it is over.
        payers: Those that come on top of them, and take turns in sending the load.
    """
    scenarios: dict[str, Any] = {
        name: {
            "executor": "constant-arrival-rate",
            "rate": round(requests_a_second * share * 10),
            "timeUnit": "10s",
            "startTime": f"{COMING}s",
            "duration": f"{seconds}s",
            "preAllocatedVUs": max(1, round(payers * share / sum(_AT_ONCE.values()))),
            "exec": name,
        }
        for name, share in MIX.items()
    }
    # They come evenly, stay, and leave after the load: each is there for as long as all others.
    scenarios["resting"] = {
        "executor": "constant-arrival-rate",
        "rate": -(-connections // (COMING - 5)),
        "timeUnit": "1s",
        "duration": f"{COMING - 5}s",
        "preAllocatedVUs": connections,
        "gracefulStop": f"{seconds + COMING + 10}s",
        "exec": "resting",
    }
    alive = p.get(f"{url}/alive", checks={"there": p.status(204)})
    flows = _flows(url) | {"resting": [alive, p.sleep(f"{seconds + COMING}s"), alive]}
    return _run(flows, scenarios)


def burst(url: str, requests: int, keys: int, seconds: int, name: str) -> Outcome:
    """Send many requests for few keys at one moment, and look at another page all the while.

    Args:
        name: What the keys begin with.
        seconds: For which there are only the looks, and for which they go on after the moment.

    Returns:
        What was measured: the looks are "before" the burst, and "meanwhile".
    """
    rows = [
        {"key": f"{name}-{n % keys}", "account": f"account-{n % keys % ACCOUNTS}"}
        for n in range(requests)
    ]
    copies = p.feeder("copies", rows=rows, mode="per-vu")
    flows = {
        "burst": [_payment(url, copies.key, copies.account)],
        "look": [p.get(f"{url}/idempotency/policy/", checks={"seen": p.status(200)})],
    }
    looks = {"executor": "constant-arrival-rate", "rate": 20, "timeUnit": "1s"}
    looks |= {"preAllocatedVUs": 200, "exec": "look", "duration": f"{seconds}s"}
    scenarios = {
        "before": looks,
        "burst": {
            "executor": "per-vu-iterations",
            "vus": requests,
            "iterations": 1,
            "maxDuration": "120s",
            "startTime": f"{seconds}s",
            "exec": "burst",
        },
        "meanwhile": looks | {"startTime": f"{seconds}s"},
    }
    return _run(flows, scenarios, feeders=[copies])


def hot(url: str, clients: int, seconds: int, key: str) -> Outcome:
    """Let many clients send one payment with one key, again and again, as fast as they can."""
    return _same(clients, seconds, _payment(url, key, "account-0"))


def alone(url: str, clients: int, seconds: int) -> Outcome:
    """Let many clients send payments, each with a key of its own, as fast as they can."""
    return _same(clients, seconds, *_flows(url)["single"])


def bare(url: str, clients: int, seconds: int) -> Outcome:
    """Let many clients send payments to the view that takes no keys, as fast as they can."""
    body = {"amount": "12.50", "currency": BARE_CURRENCY, "card": "tok_visa"}
    headers = {"Authorization": f"Bearer {_PAYERS.account}"}
    checks = {"answered": p.status(201)}
    return _same(
        clients, seconds, p.post(f"{url}/payments/bare/", json=body, headers=headers, checks=checks)
    )


def _same(clients: int, seconds: int, step: Any) -> Outcome:
    load = {"executor": "constant-vus", "vus": clients, "duration": f"{seconds}s", "exec": "same"}
    return _run({"same": [step]}, {"same": load | {"gracefulStop": "60s"}})


def _flows(url: str) -> dict[str, list[Any]]:
    run = token_hex(4)
    payer = _PAYERS.account
    first, same = (_payment(url, key, payer) for key in (p.uuid(), f"{run}-r-{p.VU}-{p.ITER}"))
    twice = [_payment(url, f"{run}-d-{p.VU}-{p.ITER}", payer)] * 2
    return {"single": [first], "retried": [same, same], "doubled": [p.batch(twice)]}


_PAYERS = p.feeder("payers", rows=[{"account": f"account-{n}"} for n in range(ACCOUNTS)])


def _payment(url: str, key: str, account: str) -> Any:
    return p.post(
        f"{url}/payments/",
        json={"amount": "12.50", "currency": "EUR", "card": "tok_visa"},
        headers={"Idempotency-Key": f'"{key}"', "Authorization": f"Bearer {account}"},
        checks={"answered": p.status(201, 409)},
    )


def _run(flows: Any, scenarios: dict[str, Any], feeders: Any = (_PAYERS,)) -> Outcome:
    # k9 tells those parts of a metric for which it is given a threshold.
    timed = {
        name: f"{_MEASURE.get(values['executor'], 'iteration_duration')}{{scenario:{name}}}"
        for name, values in scenarios.items()
    }
    counted = {
        str(code): f"http_reqs{{status:{code}}}" for code in (200, 201, 204, 409, 422, *FAILURES)
    }
    thresholds = {metric: ["max>=0"] for metric in timed.values()}
    thresholds |= {metric: ["count>=0"] for metric in counted.values()}
    options = {"scenarios": scenarios, "thresholds": thresholds}
    plan = p.Plan(flows=flows, options=options, feeders=feeders)
    result = k9.run(plan, check_thresholds=False, args=("--quiet",))
    return Outcome(
        requests=int(result.metric("http_reqs")["count"]),
        a_second=float(result.metric("http_reqs")["rate"]),
        by_status={
            code: int(result.metric(metric)["count"])
            for code, metric in counted.items()
            if result.metric(metric)["count"]
        },
        milliseconds={
            name: {what: result.metric(metric)[what] for what in _PERCENTILES}
            for name, metric in timed.items()
            if name != "resting"
        },
        unsent=int(result.metrics.get("dropped_iterations", {}).get("count", 0)),
    )
