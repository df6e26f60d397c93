"""What clients may look at: the state of their own keys."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
from django.apps import apps
from django.test import Client
from support import threads
from test_claims import abandon, claim, succeed
from test_decorators import problem

from idempotency import claims
from idempotency.models import IdempotencyKey
from testproject.shop.models import Account
from testproject.shop.seed import ALICE, BOB

PAGES = {"/idempotency/keys/": "Bearer"}
if apps.is_installed("rest_framework"):
    PAGES["/api/keys/"] = "Token"


@pytest.fixture(params=PAGES)
def status(request: pytest.FixtureRequest, alice: Account) -> Any:
    """Ask for a key's state, of the plain page and of the framework's."""

    def ask(key: str, token: str = ALICE.token) -> Any:
        headers = {"Authorization": f"{PAGES[request.param]} {token}"} if token else {}
        return Client().get(f"{request.param}{quote(key, safe='')}/", headers=headers)

    return ask


def of_alice(key: str = "", **values: Any) -> claims.Claim:
    """Give a claim in alice's scope."""
    user = Account.objects.get(user__username="alice").user_id
    return claim(key, scope=f"user:{user}", **values)


def test_a_completed_key(status: Any) -> None:
    """With its status code, and when it came and goes; never kept by caches."""
    mine = of_alice()
    succeed(mine)

    response = status(mine.key)

    state = response.json()
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    row = IdempotencyKey.objects.get()
    for name, moment in (("first_seen", row.created_at), ("expires", row.expires_at)):
        told = datetime.fromisoformat(state.pop(name))
        assert abs((told - moment).total_seconds()) < 0.001
    assert state == {
        "key": mine.key,
        "status": "completed",
        "running": False,
        "status_code": 201,
        "attempts": 1,
    }


def test_a_running_key_is_told_from_an_abandoned_one(status: Any) -> None:
    """By the lock; and asking takes none, so that nobody is turned away because of it."""
    mine = of_alice()

    with threads() as start, claims.attempt(mine):
        state = start(status, mine.key).result().json()
        assert (state["status"], state["running"], state["status_code"]) == (
            "in_progress",
            True,
            None,
        )
        claims.roll_back()

    state = status(mine.key).json()
    assert (state["status"], state["running"]) == ("in_progress", False)


@pytest.mark.parametrize("key", ["a/b", "a?b#c%2F", 'quo"te', " a b ", "a\\b", "."])
def test_any_key_can_be_asked_for(status: Any, key: str) -> None:
    """Escaped as a part of a path."""
    mine = of_alice(key)
    succeed(mine)

    assert status(key).json()["key"] == key


def test_unknown_expired_and_foreign_keys_are_alike(status: Any) -> None:
    """Nobody learns from the answer whether somebody has the key."""
    foreign, expired = of_alice("foreign"), of_alice("expired")
    succeed(foreign)
    abandon(expired)
    IdempotencyKey.objects.filter(key="expired").update(
        created_at="2026-01-01T00:00Z", expires_at="2026-01-02T00:00Z"
    )

    answers = [status("unknown"), status("expired"), status("foreign", BOB.token)]

    assert {(answer.status_code, problem(answer)) for answer in answers} == {(404, "unknown-key")}


def test_a_stranger_is_refused(status: Any) -> None:
    """Nobody can tell whose key they mean."""
    response = status("unknown", token="")

    assert (response.status_code, problem(response)) == (400, "unscoped-caller")
