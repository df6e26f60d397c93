"""What a project's own tests are helped with: they pass for views that keep the promise, only."""

import json
import unittest
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from conftest import MakeDoor
from django.db import connection, transaction
from django.db.models import F
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, TestCase, TransactionTestCase
from pytest_django import DjangoDbBlocker
from rest_framework.test import APIClient

from idempotency.exceptions import KeyReused, MissingKey, RequestInProgress
from idempotency.models import IdempotencyKey
from idempotency.test import (
    assert_problem,
    assert_replay,
    assert_safe_to_retry,
    expire,
    first_request_running,
    worker_dies,
)
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, seed

ORDER = {"amount": "12.50", "currency": "EUR", "card": "tok_visa"}
BEARER = {"Authorization": f"Bearer {ALICE.token}"}

Send = Callable[..., Any]


def send_with_client(data: Any = ORDER, **kwargs: Any) -> Any:
    """Pay with Django's client."""
    headers = BEARER | kwargs.pop("headers", {})
    return Client().post("/payments/", data, "application/json", headers=headers, **kwargs)


def send_to_async_view(data: Any = ORDER, **kwargs: Any) -> Any:
    """Pay in the async view, with the async client."""
    headers = BEARER | kwargs.pop("headers", {})
    post = async_to_sync(AsyncClient().post)
    return post("/async/payments/", data, "application/json", headers=headers, **kwargs)


def send_with_api_client(data: Any = ORDER, **kwargs: Any) -> Any:
    """Pay with the client of Django REST framework."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {ALICE.token}")
    return client.post("/api/payments/", data, format="json", **kwargs)


SENDERS = [send_with_client, send_to_async_view, send_with_api_client]


@pytest.fixture(params=["one-transaction", "committed"])
def account(request: pytest.FixtureRequest) -> Account:
    """Give alice's account, in a test that is one transaction and in one that commits."""
    request.getfixturevalue("db" if request.param == "one-transaction" else "committed")
    return seed()[0]


@pytest.mark.parametrize("send", SENDERS)
def test_a_view_that_keeps_the_promise_is_safe_to_retry(account: Account, send: Send) -> None:
    """The first response is given back, and the effect happened once."""
    response = assert_safe_to_retry(send, effect=Payment.objects.count)

    assert response.status_code == 201
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("send", SENDERS)
def test_a_running_first_request_is_told(account: Account, send: Send) -> None:
    """409, as often as it is tried; the block leaves nothing."""
    key = {"Idempotency-Key": "mine"}

    with first_request_running():
        for _ in range(2):
            assert_problem(send(headers=key), RequestInProgress)

    assert not IdempotencyKey.objects.exists()
    assert not Payment.objects.exists()


@pytest.mark.parametrize("send", SENDERS)
def test_after_a_running_request_the_same_key_is_a_first_one(alice: Account, send: Send) -> None:
    """That of a worker who has left no trace."""
    key = {"Idempotency-Key": "mine"}

    with first_request_running():
        send(headers=key)
    assert send(headers=key).status_code == 201

    assert IdempotencyKey.objects.get().attempts == 1


@pytest.mark.parametrize("send", SENDERS)
def test_a_worker_that_dies_leaves_nothing(account: Account, send: Send) -> None:
    """But a key that can be retried."""
    key = {"Idempotency-Key": "mine"}

    with worker_dies():
        send(headers=key)
    assert Payment.objects.count() == 0
    assert not IdempotencyKey.objects.filter(status="completed").exists()

    first, retry = send(headers=key), send(headers=key)
    assert_replay(first, retry)
    assert Payment.objects.count() == 1


def test_an_expired_key_is_a_first_one(account: Account) -> None:
    """The request runs again."""
    assert_safe_to_retry(send_with_client, key="mine")

    expire("mine")

    assert_safe_to_retry(send_with_client, key="mine", effect=Payment.objects.count)
    assert Payment.objects.count() == 2


def test_another_request_with_the_key_is_a_problem(account: Account) -> None:
    """Which can be told from other responses, and from other problems."""
    assert_safe_to_retry(send_with_client, key="mine")

    reused = send_with_client(ORDER | {"amount": "1"}, headers={"Idempotency-Key": "mine"})

    assert_problem(reused, KeyReused)
    with pytest.raises(AssertionError, match="no problem 409 request-in-progress, but 422 <http"):
        assert_problem(reused, RequestInProgress)
    with pytest.raises(AssertionError, match="but 201 without a link to a problem"):
        assert_problem(send_with_client(headers={"Idempotency-Key": "new"}), KeyReused)


def test_a_problem_is_known_on_a_page_for_people_too(account: Account) -> None:
    """Forms are answered with pages."""
    assert_problem(send_with_client(headers={"Accept": "text/html"}), MissingKey)


def test_headers_and_keys_of_the_caller_are_sent(make_function_door: MakeDoor) -> None:
    """Beside the key, which may be given."""
    seen = []

    def work(request: Any) -> HttpResponse:
        seen.append((request.idempotency.key, request.headers["X-Of-Mine"]))
        return HttpResponse(b"\xff\x00", content_type="application/octet-stream")

    door = make_function_door(work)
    headers = door.headers(X_Of_Mine="yes")
    del headers["Idempotency-Key"]

    assert_safe_to_retry(Client().post, door.path, headers=headers, key="mine")

    assert seen == [("mine", "yes")]


def test_a_view_without_keys_is_not_safe(account: Account) -> None:
    """Its retry is no replay, and what is said helps to find out why."""
    with pytest.raises(AssertionError, match=r"not replayed\. The first request was answered 404"):
        assert_safe_to_retry(Client().post, "/nowhere/")


def test_an_answer_that_is_not_kept_is_not_safe(account: Account) -> None:
    """It runs again."""
    with pytest.raises(AssertionError, match="answered 500, the retry 500"):
        assert_safe_to_retry(send_with_client, ORDER | {"card": "tok_returns_500"})


def test_a_request_without_effect_proves_nothing(account: Account) -> None:
    """A test that looks at the wrong table is told so."""
    with pytest.raises(AssertionError, match="answered 201, left the effect at 'nothing'"):
        assert_safe_to_retry(send_with_client, effect=lambda: "nothing")


def test_an_effect_of_the_retry_is_found(account: Account) -> None:
    """Such as that of a middleware, which runs around the replay."""
    calls: list[Any] = []

    def send(**kwargs: Any) -> Any:
        calls.append(kwargs)
        return send_with_client(**kwargs)

    with pytest.raises(AssertionError, match="retry changed the effect from 1 to 2"):
        assert_safe_to_retry(send, effect=lambda: len(calls))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status_code": 202}, "another status code: 202, not 201"),
        ({"content": b"{}"}, "another body: b'{}', not"),
    ],
)
def test_a_replay_that_differs_is_found(
    account: Account, change: dict[str, Any], message: str
) -> None:
    """In its status or its bytes."""
    key = {"Idempotency-Key": "mine"}
    first, retry = send_with_client(headers=key), send_with_client(headers=key)
    for name, value in change.items():
        setattr(retry, name, value)

    with pytest.raises(AssertionError, match=message):
        assert_replay(first, retry)


def test_a_replay_is_no_first_response(account: Account) -> None:
    """A key that was sent before is told."""
    assert_safe_to_retry(send_with_client, key="mine")

    with pytest.raises(AssertionError, match="a replay already"):
        assert_safe_to_retry(send_with_client, key="mine")


def test_streams_are_compared(make_function_door: MakeDoor) -> None:
    """By what they yield."""
    door = make_function_door(lambda request: StreamingHttpResponse(iter([b"a", b"b"])))

    assert_replay(door(), door())


def test_a_key_that_was_sent_has_no_running_first_request(account: Account) -> None:
    """Waiting for it would never end where the test is one transaction."""
    assert_safe_to_retry(send_with_client, key="mine")

    with (
        pytest.raises(AssertionError, match="key 'mine' was sent before"),
        first_request_running(),
    ):
        send_with_client(headers={"Idempotency-Key": "mine"})


def test_a_block_that_fails_leaves_nothing(account: Account) -> None:
    """The other worker is gone then, too, and here it has kept both requests from running."""
    with pytest.raises(AssertionError, match="not replayed"), first_request_running():
        assert_safe_to_retry(send_with_client)

    assert not IdempotencyKey.objects.exists()


def test_a_death_that_did_not_come_is_told(account: Account) -> None:
    """A request that was refused had no work to lose."""
    with pytest.raises(AssertionError, match="The worker lives"), worker_dies():
        send_with_client(ORDER | {"card": "tok_returns_500"}, headers={"Idempotency-Key": "mine"})


def test_what_nobody_sent_cannot_expire(account: Account) -> None:
    """A typing error in a test is found."""
    with pytest.raises(AssertionError, match="Nobody has sent the key 'other'"):
        expire("other")


def test_hooks_of_a_dead_worker_do_not_run(make_function_door: MakeDoor) -> None:
    """What was to be done after the commit is not done."""
    done: list[int] = []

    def work(request: Any) -> HttpResponse:
        Account.objects.update(balance=F("balance") - 1)
        transaction.on_commit(lambda: done.append(request.idempotency.number))
        return JsonResponse({})

    door = make_function_door(work)
    with worker_dies():
        door()
    assert done == []

    assert door().status_code == 200
    assert done == [2]


class Cases:
    """The same in classes of `unittest`, as Django's documentation has them."""

    def test_all_of_it(self: Any) -> None:
        """A death, retries, an expiry and a conflict."""
        seed()
        with worker_dies():
            send_with_client(headers={"Idempotency-Key": "a"})
        assert_safe_to_retry(send_with_client, key="a", effect=Payment.objects.count)
        expire("a")
        response = assert_safe_to_retry(send_with_client, key="a", effect=Payment.objects.count)
        assert json.loads(response.content)["amount"] == "12.50"
        with first_request_running():
            assert_problem(send_with_client(headers={"Idempotency-Key": "b"}), RequestInProgress)


@pytest.mark.parametrize("base", [TestCase, TransactionTestCase])
def test_classes_of_unittest_are_helped(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, base: type[Any]
) -> None:
    """In one transaction, and where all is committed."""
    case: Any = type("PaymentTest", (Cases, base), {})("test_all_of_it")
    result = unittest.TestResult()
    with django_db_blocker.unblock():
        unittest.TestSuite([case]).run(result)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM idempotency_key")
            (left,) = cursor.fetchone()

    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors + result.failures
    assert left == 0
