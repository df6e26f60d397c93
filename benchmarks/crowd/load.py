"""What the clients do: first requests, retries after the answer, and two copies at once."""

from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import k9
import k9.plan as p

from benchmarks.traffic import ACCOUNTS

MIX = {"single": 0.40, "retried": 0.15, "doubled": 0.15}
"""Keys of each kind for one request: of 100 requests 70 are first ones, 15 are retries of a key
that was answered, and 15 come at the same moment as another copy of theirs."""

FAILURES = ("0", "500", "502", "503", "504")
"""What no client should see; 0 where there was no answer."""
_PERCENTILES = ("med", "p(99)", "max")

_MEASURE = {"constant-arrival-rate": "iteration_duration_corrected"}
"""What is told where there is a moment at which a client meant to send; else from the sending."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What k9 measured."""

    requests: int
    by_status: dict[str, int]
    milliseconds: dict[str, dict[str, float]]
    """Median, p99 and maximum of each kind of client: where they come at a rate, from the moment
    one meant to send until its last answer."""
    unsent: int
    """Iterations that no client was free for."""


def greedy(url: str, connections: int, seconds: int) -> Outcome:
    """Send the mix over as many connections, each as soon as it has been answered."""
    shares = {name: round(connections * share / sum(MIX.values())) for name, share in MIX.items()}
    scenarios = {
        name: {"executor": "constant-vus", "vus": vus, "duration": f"{seconds}s", "exec": name}
        for name, vus in shares.items()
    }
    return _run(_flows(url), scenarios)


def steady(url: str, connections: int, requests_a_second: float, seconds: int) -> Outcome:
    """Send requests at a rate that does not depend on the answers, over many open connections."""
    scenarios = {
        name: {
            "executor": "constant-arrival-rate",
            "rate": round(requests_a_second * share * 10),
            "timeUnit": "10s",
            "duration": f"{seconds}s",
            "preAllocatedVUs": round(connections * share / sum(MIX.values())),
            "exec": name,
        }
        for name, share in MIX.items()
    }
    return _run(_flows(url), scenarios)


def burst(url: str, requests: int, keys: int, seconds: int) -> Outcome:
    """Send many requests for few keys at one moment, and look at another page all the while.

    Args:
        seconds: For which there are only the looks, and for which they go on after the moment.

    Returns:
        What was measured: the looks are "before" the burst, and "meanwhile".
    """
    name = token_hex(4)
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


def hot(url: str, clients: int, seconds: int, card: str = "tok_visa") -> Outcome:
    """Let many clients send one payment with one key, again and again, as fast as they can."""
    flows = {"hot": [_payment(url, token_hex(4), "account-0", card)]}
    hot = {"executor": "constant-vus", "vus": clients, "duration": f"{seconds}s", "exec": "hot"}
    return _run(flows, {"hot": hot}, feeders=())


def alone(url: str, clients: int, seconds: int) -> Outcome:
    """Let many clients send payments, each with a key of its own, as fast as they can."""
    flows = {"alone": _flows(url)["single"]}
    alone = {"executor": "constant-vus", "vus": clients, "duration": f"{seconds}s", "exec": "alone"}
    return _run(flows, {"alone": alone})


def _flows(url: str) -> dict[str, list[Any]]:
    run = token_hex(4)
    payer = _PAYERS.account
    first, same = (_payment(url, key, payer) for key in (p.uuid(), f"{run}-r-{p.VU}-{p.ITER}"))
    twice = [_payment(url, f"{run}-d-{p.VU}-{p.ITER}", payer)] * 2
    return {"single": [first], "retried": [same, same], "doubled": [p.batch(twice)]}


_PAYERS = p.feeder("payers", rows=[{"account": f"account-{n}"} for n in range(ACCOUNTS)])


def _payment(url: str, key: str, account: str, card: str = "tok_visa") -> Any:
    return p.post(
        f"{url}/payments/",
        json={"amount": "12.50", "currency": "EUR", "card": card},
        headers={"Idempotency-Key": f'"{key}"', "Authorization": f"Bearer {account}"},
        checks={"answered": p.status(201, 409)},
    )


def _run(flows: Any, scenarios: dict[str, Any], feeders: Any = (_PAYERS,)) -> Outcome:
    # k9 tells those parts of a metric for which it is given a threshold.
    timed = {
        name: f"{_MEASURE.get(values['executor'], 'http_req_duration')}{{scenario:{name}}}"
        for name, values in scenarios.items()
    }
    counted = {str(code): f"http_reqs{{status:{code}}}" for code in (200, 201, 409, 422, *FAILURES)}
    thresholds = {metric: ["max>=0"] for metric in timed.values()}
    thresholds |= {metric: ["count>=0"] for metric in counted.values()}
    options = {"scenarios": scenarios, "thresholds": thresholds}
    plan = p.Plan(flows=flows, options=options, feeders=feeders)
    result = k9.run(plan, check_thresholds=False, args=("--quiet",))
    return Outcome(
        requests=int(result.metric("http_reqs")["count"]),
        by_status={
            code: int(result.metric(metric)["count"])
            for code, metric in counted.items()
            if result.metric(metric)["count"]
        },
        milliseconds={
            name: {what: result.metric(metric)[what] for what in _PERCENTILES}
            for name, metric in timed.items()
        },
        unsent=int(result.metrics.get("dropped_iterations", {}).get("count", 0)),
    )
