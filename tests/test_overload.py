"""Overload: what many copies of a slow request do to others, on few threads.

Nothing here is a matter of time: the slow request is held until all others have been answered.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from conftest import ServeShop
from django.db import transaction
from support import eventually, threads, waiting_for_a_lock
from test_concurrency import pay
from test_decorators import problem

from testproject.shop.models import Account, Payment
from testproject.shop.seed import BOB

pytestmark = pytest.mark.slow


@pytest.fixture
def server(alice: Account, serve_shop: ServeShop) -> httpx.Client:
    """The shop, served by two workers with four threads each."""
    return serve_shop("few")


@contextmanager
def held(server: httpx.Client, key: str) -> Iterator[Any]:
    """Hold a payment of alice's in the middle of its view, and give it when it has come there."""
    with threads() as start:
        with transaction.atomic():
            Account.objects.select_for_update().get(user__username="alice")
            first = start(pay, server, key, "wsgi")
            eventually(lambda: waiting_for_a_lock() == 1)
            yield first
            assert not first.done()
        assert first.result().status_code == 201


def test_duplicates_of_a_slow_request_leave_the_threads_to_others(server: httpx.Client) -> None:
    """60 are told 409 while the first still runs, and others' payments are made meanwhile."""
    key = str(uuid.uuid4())

    with held(server, key) as first, threads() as start:
        duplicates = [start(pay, server, key, "wsgi") for _ in range(60)]
        others = [start(pay, server, str(uuid.uuid4()), "wsgi", customer=BOB) for _ in range(20)]

        assert {other.result().status_code for other in others} == {201}
        answers = [duplicate.result() for duplicate in duplicates]
        assert {problem(answer) for answer in answers} == {"request-in-progress"}
        assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
        assert waiting_for_a_lock() == 1, "More than the first are in the view."

    assert pay(server, key, "wsgi").content == first.result().content
    assert Payment.objects.count() == 21


def test_waiting_ends_though_the_first_request_does_not(server: httpx.Client) -> None:
    """Waiters may take all the threads, but only for MAX_WAIT: then others are served again."""
    key = str(uuid.uuid4())

    with held(server, key), threads() as start:
        waiters = [start(pay, server, key, "wsgi", Prefer="wait=3600") for _ in range(8)]
        eventually(lambda: waiting_for_a_lock() >= 4)  # all threads of one of the workers
        other = start(pay, server, str(uuid.uuid4()), "wsgi", customer=BOB)

        answers = [waiter.result() for waiter in waiters]
        assert other.result().status_code == 201
        assert {problem(answer) for answer in answers} == {"request-in-progress"}
        assert {answer.headers["Preference-Applied"] for answer in answers} == {"wait=5"}
