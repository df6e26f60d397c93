"""Many callers at once, and workers that die: real servers, real connections, one effect a key."""

import os
import signal
import socket
import threading
import uuid
from collections import Counter
from typing import Any

import httpx
import pytest
from conftest import MakeDoor, ServeShop
from django.conf import settings
from django.db.transaction import atomic
from django.http import HttpRequest, HttpResponse
from support import (
    DEADLINE,
    SERVERS,
    Gate,
    eventually,
    threads,
    waiting_for_a_lock,
    workers_in_mid_payment,
    workers_waiting_for_a_lock,
)
from test_decorators import Refused, problem, write

from testproject import variants
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, BOB, Customer

CALLERS, ROUNDS = 20, 30


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Sync workers, and async ones."""
    return str(request.param)


@pytest.fixture
def server(kind: str, alice: Account, serve_shop: ServeShop) -> httpx.Client:
    """The shop, served for real."""
    return serve_shop(kind, SHOP_ATOMIC_REQUESTS="0")


@pytest.fixture(params=["0", "1"], ids=["autocommit", "atomic-requests"])
def atomic_shop(
    request: pytest.FixtureRequest, kind: str, alice: Account, serve_shop: ServeShop
) -> httpx.Client:
    """The shop, served with ATOMIC_REQUESTS off and on."""
    return serve_shop(kind, SHOP_ATOMIC_REQUESTS=request.param)


def pay(
    client: httpx.Client, key: str, kind: str, card: str = "tok_visa", **options: Any
) -> httpx.Response:
    """Send a payment of one cent, as alice unless told otherwise."""
    customer: Customer = options.pop("customer", ALICE)
    amount = options.pop("amount", "0.01")
    headers = {"Authorization": f"Bearer {customer.token}", "Idempotency-Key": f'"{key}"'}
    return client.post(
        "/payments/" if kind == "wsgi" else "/async/payments/",
        json={"amount": amount, "currency": "EUR", "card": card},
        headers=headers | options,
    )


def test_many_callers_with_one_key_make_one_payment(kind: str, atomic_shop: httpx.Client) -> None:
    """In every round one payment; all are told 201 with the same bytes, or 409 with a date."""
    barrier = threading.Barrier(CALLERS)

    def call(key: str) -> httpx.Response:
        barrier.wait(DEADLINE)
        return pay(atomic_shop, key, kind)

    with threads() as start:
        for round_number in range(1, ROUNDS + 1):
            key = str(uuid.uuid4())
            answers = [start(call, key) for _ in range(CALLERS)]
            responses = [answer.result() for answer in answers]

            by_status = Counter(response.status_code for response in responses)
            assert set(by_status) <= {201, 409}
            fresh = [r for r in responses if r.status_code == 201]
            assert len({response.content for response in fresh}) == 1
            assert sum("Idempotent-Replayed" not in response.headers for response in fresh) == 1
            for response in responses:
                if response.status_code == 409:
                    assert int(response.headers["Retry-After"]) >= 1
            assert Payment.objects.count() == round_number

    alice = Account.objects.get(user__username="alice")
    assert alice.balance * 100 == 1000 * 100 - ROUNDS


def test_a_worker_killed_in_mid_payment_leaves_nothing(kind: str, server: httpx.Client) -> None:
    """No row stays; the retry is accepted at once, and makes one payment."""
    key = str(uuid.uuid4())

    with threads() as start:
        first = start(pay, server, key, kind, "tok_slow")
        (victim,) = eventually(workers_in_mid_payment)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            first.result()

    assert Payment.objects.count() == 0
    retry: Any = eventually(lambda: answered(server, key, kind))
    assert retry.status_code == 201
    assert "Idempotent-Replayed" not in retry.headers
    assert Payment.objects.count() == 1
    assert pay(server, key, kind, "tok_slow").content == retry.content


def test_a_worker_killed_in_mid_statement_lets_its_key_go(kind: str, server: httpx.Client) -> None:
    """Although the statement could go on: the shop's role lets PostgreSQL look who is there."""
    key = str(uuid.uuid4())

    with threads() as start:
        with atomic():
            Account.objects.select_for_update().get(user__username="alice")
            first = start(pay, server, key, kind)
            (victim,) = eventually(workers_waiting_for_a_lock)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                first.result()
            second = start(lambda: eventually(lambda: answered(server, key, kind, "tok_visa")))
            eventually(lambda: set(workers_waiting_for_a_lock()) - {victim})
        retry = second.result()

    assert retry.status_code == 201
    assert "Idempotent-Replayed" not in retry.headers
    assert Payment.objects.count() == 1


@pytest.mark.slow
def test_a_worker_that_hangs_lets_its_key_go(alice: Account, serve_shop: ServeShop) -> None:
    """After the time that the role's sessions may pause in a transaction, and with no effect."""
    pause = "-c idle_in_transaction_session_timeout=5s"  # longer than the slow card's
    # Straight to PostgreSQL: PgBouncer takes no options.
    address = serve_shop("wsgi", PGOPTIONS=pause, DATABASE_VARIANT="default").base_url
    key = str(uuid.uuid4())
    none_kept = httpx.Limits(max_keepalive_connections=0)  # one might be the hanging worker's

    with (
        httpx.Client(base_url=address, timeout=DEADLINE, limits=none_kept) as server,
        threads() as start,
    ):
        first = start(pay, server, key, "wsgi", "tok_slow")
        (victim,) = eventually(workers_in_mid_payment)
        os.kill(victim, signal.SIGSTOP)
        try:
            assert pay(server, key, "wsgi", "tok_slow").status_code == 409
            retry: Any = eventually(lambda: answered(server, key, "wsgi"))
        finally:
            os.kill(victim, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            first.result()

    assert retry.status_code == 201
    assert "Idempotent-Replayed" not in retry.headers
    assert Payment.objects.count() == 1


def answered(
    client: httpx.Client, key: str, kind: str, card: str = "tok_slow"
) -> httpx.Response | None:
    """Retry as a good client does: on a refused connection, and on 409."""
    try:
        response = pay(client, key, kind, card)
    except httpx.TransportError:
        return None  # the server is replacing its worker
    return response if response.status_code != 409 else None


def test_while_a_payment_runs(kind: str, server: httpx.Client) -> None:
    """The same request is 409 or waits, and another is 422."""
    key = str(uuid.uuid4())

    with threads() as start:
        first = start(pay, server, key, kind, "tok_slow")
        eventually(workers_in_mid_payment)

        same = pay(server, key, kind, "tok_slow")
        assert (same.status_code, problem(same)) == (409, "request-in-progress")
        assert int(same.headers["Retry-After"]) >= 1
        other = pay(server, key, kind, "tok_slow", amount="0.02")
        assert (other.status_code, problem(other)) == (422, "key-reused")
        assert not first.done()
        waited = pay(server, key, kind, "tok_slow", Prefer="wait=30")

    assert waited.status_code == first.result().status_code == 201
    assert waited.content == first.result().content
    assert waited.headers["Preference-Applied"] == "wait=5"
    assert "Preference-Applied" not in first.result().headers
    assert Payment.objects.count() == 1


def insist(client: httpx.Client, key: str, kind: str, card: str, **options: Any) -> httpx.Response:
    """Send a payment, and send it again where PostgreSQL has given it up for another's."""
    response = pay(client, key, kind, card, **options)
    while settings.DATABASE_VARIANT in variants.ISOLATED and response.status_code == 503:
        assert problem(response) == "transaction-conflict"
        response = pay(client, key, kind, card, **options)
    return response


def test_while_another_caller_uses_the_same_key(kind: str, server: httpx.Client) -> None:
    """Neither is the other's business: both pay at once, and each is told of their own payment."""
    key = str(uuid.uuid4())

    with threads() as start:
        alices = start(insist, server, key, kind, "tok_slow")
        eventually(workers_in_mid_payment)
        bobs = insist(server, key, kind, "tok_visa", customer=BOB)
        assert not alices.done()

    assert bobs.status_code == alices.result().status_code == 201
    assert bobs.content != alices.result().content
    assert Payment.objects.count() == 2


BYTES = [
    b"",
    b" ",
    b'"',
    b'""',
    b"a, b",
    b'"a", "b"',
    b"\xff\xfe",
    "schlüssel".encode(),
    "💶".encode(),
    b"a\x00b",
    b"a\x01b",
    b"a\x7fb",
    b"a\tb",
    b"x" * 256,
    b"x" * 9000,
    b'"\\x"',
    b"a\rb",
]


@pytest.mark.parametrize("value", BYTES)
def test_bytes_no_client_library_would_send(kind: str, server: httpx.Client, value: bytes) -> None:
    """Raw on the socket: the server or we refuse it with a 4xx, and nothing is paid."""
    status = raw_payment(server, kind, b"Idempotency-Key: " + value + b"\r\n")

    assert 400 <= status < 500
    assert Payment.objects.count() == 0


def test_two_headers_are_refused(kind: str, server: httpx.Client) -> None:
    """Even with the same key twice, nobody can say which one is meant."""
    assert raw_payment(server, kind, b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n") == 400
    assert Payment.objects.count() == 0


def raw_payment(client: httpx.Client, kind: str, headers: bytes) -> int:
    """Send a payment byte by byte, and give the status of the answer."""
    body = b'{"amount": "0.01", "currency": "EUR", "card": "tok_visa"}'
    path = b"/payments/" if kind == "wsgi" else b"/async/payments/"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.settimeout(DEADLINE)
        raw.sendall(
            b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n"
            % len(body)
            + f"Authorization: Bearer {ALICE.token}\r\n".encode()
            + headers
            + b"\r\n"
            + body
        )
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    return int(answer.split()[1])


# On threads of this process, where an event decides when the first request ends


def test_a_view_can_let_concurrent_requests_wait(make_door: MakeDoor) -> None:
    """With `wait` a concurrent request gets the answer of the first, without asking for it."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        return HttpResponse(uuid.uuid4().hex)

    door = make_door(work, wait=5)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        second = start(door)
        eventually(lambda: waiting_for_a_lock() == 1)
        gate.open()

    assert first.result().content == second.result().content
    assert second.result().headers["Idempotent-Replayed"] == "true"
    assert "Preference-Applied" not in second.result().headers


def test_the_time_to_wait_is_bounded(make_door: MakeDoor, settings: Any) -> None:
    """However long a client would wait, MAX_WAIT is the most; then it is told 409."""
    settings.IDEMPOTENCY = {"MAX_WAIT": 0.05}
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        return HttpResponse()

    door = make_door(work)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        response = door(Prefer="wait=100")
        assert not first.done()
        gate.open()

    assert (response.status_code, problem(response)) == (409, "request-in-progress")
    assert response.headers["Preference-Applied"] == "wait=0"


def test_who_waits_for_a_failing_request_runs_next(make_door: MakeDoor) -> None:
    """The first raises; one of those who wait runs, and all the others get its answer."""
    gate = Gate()
    runs: list[int] = []

    def work(request: HttpRequest) -> HttpResponse:
        runs.append(1)
        if len(runs) == 1:
            gate.wait()
            raise ZeroDivisionError
        return HttpResponse(uuid.uuid4().hex)

    door = make_door(work, wait=5)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        waiters = [start(door) for _ in range(4)]
        eventually(lambda: waiting_for_a_lock() == 4)
        gate.open()

    assert first.result().status_code == 500
    assert {waiter.result().status_code for waiter in waiters} == {200}
    assert len({waiter.result().content for waiter in waiters}) == 1
    assert len(runs) == 2


def test_a_refusal_is_one_answer_for_all_who_wait(make_function_door: MakeDoor) -> None:
    """A refusal is kept after its rollback; nobody who waits gets another answer than the rest."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        write()
        raise Refused(402)

    def refuse(_request: HttpRequest, _error: Exception) -> HttpResponse:
        return HttpResponse(uuid.uuid4().hex, status=402)

    door = make_function_door(work, exception_handler=refuse, wait=5)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        others = [start(door) for _ in range(8)]
        eventually(lambda: waiting_for_a_lock() == 8)
        gate.open()
    responses = [first.result(), *(other.result() for other in others)]

    answers = [response for response in responses if response.status_code == 402]
    assert len({response.content for response in answers}) == 1
    assert all(problem(r) == "request-in-progress" for r in responses if r.status_code != 402)
    assert Payment.objects.count() == 0


def test_real_deadlocks_end_with_one_effect_each(make_function_door: MakeDoor) -> None:
    """Two requests that lock two rows crosswise: one is asked to come again, and then succeeds."""
    accounts = [account.pk for account in Account.objects.order_by("pk")]
    both = threading.Barrier(2)

    def work(request: HttpRequest) -> HttpResponse:
        order = accounts if request.headers["X-Order"] == "up" else accounts[::-1]
        for number, pk in enumerate(order):
            account = Account.objects.select_for_update().get(pk=pk)
            if number == 0 and request.headers.get("X-Meet"):
                both.wait(DEADLINE)
        Payment.objects.create(account=account, amount=1)
        return HttpResponse(status=201)

    door = make_function_door(work)
    with threads() as start:
        answers = {
            order: start(door, Idempotency_Key=order, X_Order=order, X_Meet="1")
            for order in ("up", "down")
        }
        statuses = {order: answer.result().status_code for order, answer in answers.items()}
    assert sorted(statuses.values()) == [201, 503]

    for order in statuses:
        assert door(Idempotency_Key=order, X_Order=order).status_code == 201
    assert Payment.objects.count() == 2
