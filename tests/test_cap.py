"""The limit of keys for a scope: who is refused, who is not, and what it leaves behind."""

from datetime import timedelta
from typing import Any

import pytest
from conftest import Door, MakeDoor
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from support import Gate, threads
from test_decorators import created, problem
from test_openapi import class_based, schema

from idempotency.exceptions import TooManyKeys
from idempotency.models import IdempotencyKey
from idempotency.signals import answered
from testproject import variants
from testproject.shop.models import Payment
from testproject.shop.seed import BOB


@pytest.fixture(autouse=True)
def limited(settings: Any) -> None:
    """Let two keys be all that a caller may have."""
    settings.IDEMPOTENCY = {"MAX_KEYS_PER_SCOPE": 2}


def send(door: Door, key: str, data: Any = None, **headers: str) -> Any:
    """Send a request with a key."""
    return door(data, Idempotency_Key=key, **headers)


def expire(key: str, in_seconds: int = -1) -> None:
    """Let a key expire some time from now."""
    changed = IdempotencyKey.objects.filter(key=key).update(
        created_at=Now() - timedelta(days=1), expires_at=Now() + timedelta(seconds=in_seconds)
    )
    assert changed == 1


def keys() -> list[str]:
    """Give all keys there are."""
    return sorted(IdempotencyKey.objects.values_list("key", flat=True))


def test_one_key_more_is_refused(make_any_door: MakeDoor) -> None:
    """With a problem that says when to come again; nothing runs, and nothing stays of it."""
    door = make_any_door(created)
    first, second = send(door, "1"), send(door, "2")

    refused = send(door, "3")

    assert (refused.status_code, problem(refused)) == (429, "too-many-keys")
    assert refused.headers["Retry-After"] == "3600"
    assert keys() == ["1", "2"]
    assert Payment.objects.count() == 2
    for key, answer in (("1", first), ("2", second)):
        assert send(door, key).content == answer.content


def test_every_caller_has_as_many(make_function_door: MakeDoor) -> None:
    """Nobody is refused for what another has sent."""
    door = make_function_door(created)
    for key in "123":
        send(door, key)
    door.token = BOB.token

    assert [send(door, key).status_code for key in "123"] == [201, 201, 429]


def test_a_key_that_is_there_is_retried_at_the_limit(make_door: MakeDoor) -> None:
    """Whether it failed, was given away or is asked for with something else."""
    replies = iter([500, 400, 201, 201])
    door = make_door(lambda request: HttpResponse(status=next(replies)))

    assert [send(door, key).status_code for key in "12"] == [500, 400]
    assert send(door, "3").status_code == 429
    assert [send(door, key).status_code for key in "12"] == [201, 201]
    assert problem(send(door, "1", {"other": 1})) == "key-reused"


def test_a_running_request_is_told_from_a_full_scope(make_function_door: MakeDoor) -> None:
    """The first is 409, for its key is there."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        if request.body == b'"wait"':
            gate.wait()
        return created(request)

    door = make_function_door(work)
    send(door, "1")
    with threads() as start:
        first = start(send, door, "2", "wait")
        assert gate.reached()
        assert problem(send(door, "2", "wait")) == "request-in-progress"
        assert problem(send(door, "2", "wait", Prefer="wait=0")) == "request-in-progress"
        assert problem(send(door, "2", "other")) == "key-reused"
        assert problem(send(door, "3", Prefer="wait=5")) == "too-many-keys"
        gate.open()

    assert first.result().status_code == 201


def test_there_is_room_again_when_a_key_expires(make_door: MakeDoor) -> None:
    """Purged or not; and whoever was refused is served with the same key."""
    door = make_door(created)
    send(door, "1"), send(door, "2"), send(door, "3")
    expire("1")

    assert send(door, "3").status_code == 201
    assert problem(send(door, "4")) == "too-many-keys"


def test_an_expired_key_is_as_if_never_seen(make_door: MakeDoor) -> None:
    """At the limit it is refused as any new one, and served when there is room."""
    door = make_door(created)
    first = send(door, "1")
    expire("1")
    send(door, "2"), send(door, "3")

    assert problem(send(door, "1")) == "too-many-keys"
    assert problem(send(door, "1", {"other": 1})) == "too-many-keys"
    expire("2")
    again = send(door, "1", {"other": 1})

    assert again.status_code == 201
    assert again.content != first.content


@pytest.mark.parametrize(("left", "least", "most"), [(90, 30, 90), (10**6, 3600, 3600)])
def test_retry_after_is_when_the_first_key_expires(
    make_function_door: MakeDoor, left: int, least: int, most: int
) -> None:
    """Whole seconds, at least 1, and an hour at most: keys may be evicted."""
    door = make_function_door(created)
    send(door, "1"), send(door, "2")
    expire("2", in_seconds=left)

    assert least <= int(send(door, "3").headers["Retry-After"]) <= most
    assert TooManyKeys(0).retry_after == 1


def insist(door: Door, key: str) -> Any:
    """Send a key, and send it again where PostgreSQL has given its request up for another."""
    response = send(door, key)
    while settings.DATABASE_VARIANT in variants.ISOLATED and response.status_code in {409, 503}:
        response = send(door, key)
    return response


def test_requests_at_the_same_moment_may_go_over_the_limit(make_function_door: MakeDoor) -> None:
    """By no more than they are; each has its key, or is refused and has none."""
    door = make_function_door(created)

    with threads() as start:
        answers = [start(insist, door, f"key-{number}") for number in range(12)]
        statuses = [answer.result().status_code for answer in answers]

    assert set(statuses) <= {201, 429}
    assert statuses.count(201) == len(keys()) == Payment.objects.count() >= 2
    assert send(door, "late").status_code == 429


def test_people_are_told_too(make_function_door: MakeDoor) -> None:
    """In words for people."""
    door = make_function_door(created)
    for key in "12":
        send(door, key)

    page = send(door, "3", Accept="text/html")

    assert page.status_code == 429
    assert "You have sent very much in a short time" in page.content.decode()


def test_it_is_an_outcome(make_function_door: MakeDoor) -> None:
    """So that somebody can be woken."""
    heard = []

    def listen(outcome: str, scope: str, key: str, **kwargs: Any) -> None:
        heard.append((outcome, key))

    door = make_function_door(created)
    send(door, "1"), send(door, "2")
    answered.connect(listen)
    send(door, "3")
    answered.disconnect(listen)

    assert heard == [("too_many_keys", "3")]


def test_without_a_limit_nothing_is_counted(make_function_door: MakeDoor, settings: Any) -> None:
    """The claim is the statement it always was."""
    door = make_function_door(created)

    def sent(key: str) -> str:
        with CaptureQueriesContext(connection) as queries:
            assert send(door, key).status_code == 201
        return " ".join(query["sql"] for query in queries)

    assert "count(*) FROM (" in sent("1")
    settings.IDEMPOTENCY = {}
    assert "count(*) FROM (" not in sent("2") + sent("3") + sent("4")


@pytest.mark.parametrize("limit", [None, 2])
def test_it_is_published_where_it_is_set(settings: Any, limit: int | None) -> None:
    """By the policy page and by OpenAPI."""
    settings.IDEMPOTENCY = {"MAX_KEYS_PER_SCOPE": limit}

    page = " ".join(Client().get("/idempotency/policy/").content.decode().split())

    assert ("A caller may have 2 keys" in page) == (limit == 2)
    response = schema(class_based())["paths"]["/work/"]["post"]["responses"].get("429")
    assert bool(response) == (limit == 2)
    if limit:
        assert {"Retry-After", "Link"} <= response["headers"].keys()
        examples = response["content"]["application/problem+json"]["examples"]
        assert examples.keys() == {"too-many-keys"}
