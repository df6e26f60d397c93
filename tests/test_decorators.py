"""The behaviour of every door: the tables of the contract, line by line, over Django's stack."""

import asyncio
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from socket import SHUT_RDWR, socket
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from conftest import DOORS, Door, MakeDoor
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.db import IntegrityError, connection, connections, transaction
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client, RequestFactory, TestCase
from django.test.client import encode_multipart
from django.utils.decorators import method_decorator
from django.views import View
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis import strategies as st
from support import backend_pid, unreachable_database

from idempotency.decorators import idempotent
from idempotency.models import IdempotencyKey
from idempotency.options import NOT_KEPT
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE, BOB, seed


def write() -> Payment:
    """Do what must not happen twice."""
    account = Account.objects.get(user__username="alice")
    return Payment.objects.create(account=account, amount=1, currency="EUR", card="tok_visa")


async def write_async() -> Payment:
    """Do the same with the async ORM, in steps."""
    account = await Account.objects.aget(user__username="alice")
    await Account.objects.aget(pk=account.pk)
    return await Payment.objects.acreate(account=account, amount=1, currency="EUR", card="x")


def created(_request: HttpRequest) -> HttpResponse:
    """Write, and answer with something that another run would not answer."""
    response = JsonResponse({"id": write().pk, "nonce": uuid.uuid4().hex}, status=201)
    response["Location"] = "/somewhere/"
    response["ETag"] = '"v1"'
    return response


def atomic_requests() -> bool:
    """Tell whether this test runs with ATOMIC_REQUESTS."""
    return bool(connection.settings_dict["ATOMIC_REQUESTS"])


def row(door: Door) -> IdempotencyKey:
    """Give the only row there is for the door's key."""
    return IdempotencyKey.objects.get(key=door.key)


def body(response: Any) -> bytes:
    """Give all a client would get, streamed or not."""
    if not response.streaming:
        return bytes(response.content)
    if not response.is_async:
        return bytes(response.getvalue())

    async def read() -> bytes:
        return b"".join([chunk async for chunk in response])

    return async_to_sync(read)()


def problem(response: Any) -> str:
    """Give the slug of a problem, having looked at what every problem must have."""
    assert response.headers["Content-Type"] == "application/problem+json"
    document = json.loads(response.content)
    assert set(document) == {"type", "title", "status", "detail", "instance"}
    assert document["status"] == response.status_code
    assert response.headers["Link"] == f'<{document["type"]}>; rel="describedby"'
    return str(document["type"].partition("#")[2])


# What is kept


def test_a_retry_gets_the_same_status_headers_and_bytes(make_any_door: MakeDoor) -> None:
    """A retry is answered byte for byte as the first request was, and nothing happens twice."""
    door = make_any_door(created)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 201
    assert first.content == retry.content
    assert "Idempotent-Replayed" not in first.headers
    assert retry.headers["Idempotent-Replayed"] == "true"
    del retry.headers["Idempotent-Replayed"]
    assert list(first.headers.items()) == list(retry.headers.items())
    assert Payment.objects.count() == 1
    assert row(door).attempts == 1


def test_a_returned_error_below_500_is_kept_with_its_writes(make_any_door: MakeDoor) -> None:
    """A view that returns 402 has decided: its writes stay, and so does its answer."""

    def work(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(write().pk), status=402)

    door = make_any_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 402
    assert first.content == retry.content
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("status", sorted({*NOT_KEPT, 500, 502, 503}))
def test_answers_of_the_moment_are_not_kept(make_door: MakeDoor, status: int) -> None:
    """What the view wrote with such an answer is rolled back, and a retry runs again."""

    def work(request: HttpRequest) -> HttpResponse:
        write()
        return HttpResponse(uuid.uuid4().hex, status=status)

    door = make_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == status
    assert first.content != retry.content
    assert Payment.objects.count() == 0
    assert (row(door).status, row(door).attempts) == ("in_progress", 2)
    assert row(door).last_error == f"HTTP {status}"


def test_an_exception_leaves_nothing_and_a_retry_runs_again(make_any_door: MakeDoor) -> None:
    """After an exception the retry succeeds with one effect; the attempts are counted."""
    outcomes = iter([RuntimeError("no"), ZeroDivisionError("no"), None])
    hooks: list[str] = []

    def work(request: HttpRequest) -> HttpResponse:
        response = created(request)
        transaction.on_commit(lambda: hooks.append("ran"))
        if error := next(outcomes):
            raise error
        return response

    door = make_any_door(work)

    statuses = [door().status_code for _ in range(2)]
    failed = row(door)
    assert statuses == [500, 500]
    assert (failed.status, failed.attempts, failed.last_error) == (
        "in_progress",
        2,
        "ZeroDivisionError",
    )
    assert (Payment.objects.count(), hooks) == (0, [])

    third, fourth = door(), door()

    assert third.status_code == fourth.status_code == 201
    assert third.content == fourth.content
    assert (Payment.objects.count(), hooks) == (1, ["ran"])
    assert row(door).attempts == 3


class Refused(Exception):
    """A refusal that the view's exception handler knows."""


def refuse(_request: HttpRequest, error: Exception) -> HttpResponse | None:
    """Answer a refusal with the status it names."""
    return HttpResponse(b"refused", status=error.args[0]) if isinstance(error, Refused) else None


def test_a_raised_refusal_is_kept_but_nothing_it_wrote(make_any_door: MakeDoor) -> None:
    """What the exception handler answers with 402 is kept, written after the rollback."""
    hooks: list[str] = []

    def work(request: HttpRequest) -> HttpResponse:
        write()
        transaction.on_commit(lambda: hooks.append("ran"))
        raise Refused(402)

    door = make_any_door(work, exception_handler=refuse)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 402
    assert first.content == retry.content == b"refused"
    assert retry.headers["Idempotent-Replayed"] == "true"
    assert (Payment.objects.count(), hooks) == (0, [])
    assert (row(door).status, row(door).attempts) == ("completed", 1)


def test_a_raised_refusal_of_the_moment_is_not_kept(make_door: MakeDoor) -> None:
    """What the exception handler answers with 429 is answered, and runs again."""
    runs: list[str] = []

    def work(request: HttpRequest) -> HttpResponse:
        runs.append("ran")
        write()
        raise Refused(429)

    door = make_door(work, exception_handler=refuse)

    assert [door().status_code, door().status_code] == [429, 429]
    assert len(runs) == 2
    assert Payment.objects.count() == 0
    assert row(door).last_error == "Refused"


def test_the_exception_handler_lets_other_exceptions_pass(make_door: MakeDoor) -> None:
    """Where the handler gives None, Django answers."""

    def work(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    door = make_door(work, exception_handler=refuse)

    assert door().status_code == 500
    assert row(door).last_error == "ZeroDivisionError"


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_exception_handler_answers_without_a_key_too(make_door: MakeDoor, method: str) -> None:
    """A refusal is answered alike whether or not the request has a key."""

    def work(request: HttpRequest) -> HttpResponse:
        raise Refused(402)

    door = make_door(work, exception_handler=refuse)
    door.key = ""

    assert door(method=method).status_code == 402


def test_http404_is_kept_after_a_rollback(make_any_door: MakeDoor) -> None:
    """Django turns Http404 into a 404, which is kept; what was written before is not."""
    runs: list[str] = []

    def work(request: HttpRequest) -> HttpResponse:
        runs.append("ran")
        write()
        raise Http404

    door = make_any_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 404
    assert first.content == retry.content
    assert len(runs) == 1
    assert Payment.objects.count() == 0


@pytest.mark.parametrize(("error", "status"), [(PermissionDenied, 403), (SuspiciousOperation, 400)])
def test_other_exceptions_of_django_are_not_kept(
    make_door: MakeDoor, error: type[Exception], status: int
) -> None:
    """Django answers 403 and 400 as ever, and a retry runs again."""
    runs: list[str] = []

    def work(request: HttpRequest) -> HttpResponse:
        runs.append("ran")
        write()
        raise error

    door = make_door(work)

    assert [door().status_code, door().status_code] == [status, status]
    assert len(runs) == 2
    assert Payment.objects.count() == 0


def test_store_decides_in_place_of_the_table(make_door: MakeDoor) -> None:
    """`store` says what is kept and committed: here 500 is, and 201 is not."""
    statuses = iter([500, 201, 201])

    def work(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(write().pk), status=next(statuses))

    door = make_door(work, store=lambda response: response.status_code >= 500)
    first, retry = door(), door()
    assert first.status_code == retry.status_code == 500
    assert Payment.objects.count() == 1

    door.key = "another"
    assert [door().status_code, door().status_code] == [201, 201]
    assert Payment.objects.count() == 1


def test_an_answer_with_set_rollback_is_kept_without_the_writes(make_any_door: MakeDoor) -> None:
    """Django's own way to say "roll back, but answer": what DRF does with its exceptions."""

    def work(request: HttpRequest) -> HttpResponse:
        write()
        transaction.set_rollback(True)
        return HttpResponse(uuid.uuid4().hex, status=409)

    door = make_any_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 409
    assert first.content == retry.content
    assert Payment.objects.count() == 0


def test_success_is_refused_where_the_writes_are_lost(make_door: MakeDoor) -> None:
    """A 201 whose transaction will be rolled back would be a lie: it is an error, not an answer."""

    def work(request: HttpRequest) -> HttpResponse:
        write()
        try:
            with transaction.atomic(savepoint=False):
                raise ValueError
        except ValueError:
            return HttpResponse(status=201)

    door = make_door(work)

    assert door().status_code == 500
    assert row(door).status == "in_progress"
    assert row(door).last_error == "TransactionManagementError"


def test_success_is_refused_where_a_database_error_was_swallowed(make_door: MakeDoor) -> None:
    """PostgreSQL has given the transaction up: nothing of it can be committed."""

    def work(request: HttpRequest) -> HttpResponse:
        payment = write()
        try:
            Payment.objects.create(pk=payment.pk, account=payment.account, amount=1)
        except IntegrityError:
            return HttpResponse(status=201)
        return HttpResponse(status=204)

    door = make_door(work)

    assert door().status_code == 500
    assert Payment.objects.count() == 0
    assert row(door).status == "in_progress"


def test_success_is_refused_where_the_view_closed_the_connection(make_door: MakeDoor) -> None:
    """With the connection went the lock and the writes."""

    def work(request: HttpRequest) -> HttpResponse:
        write()
        connection.close()
        return HttpResponse(status=201)

    door = make_door(work)

    assert door().status_code == 500
    assert Payment.objects.count() == 0
    assert row(door).status == "in_progress"


def test_success_is_refused_where_the_view_ended_the_transaction(make_door: MakeDoor) -> None:
    """A raw COMMIT gives the lock away, so the answer must not be saved as if it were held."""

    def work(request: HttpRequest) -> HttpResponse:
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")
        IdempotencyKey.objects.filter(key=door.key).update(attempts=7)
        return HttpResponse(status=201)

    door = make_door(work)

    assert door().status_code == 500
    assert row(door).status == "in_progress"


def left_open_by_a_stream() -> HttpResponseBase:
    """Answer with more than is kept, out of a block that ends when all of it is sent."""

    def chunks() -> Iterator[bytes]:
        with transaction.atomic():
            for _ in range(4):
                yield b"x" * 10

    return StreamingHttpResponse(chunks(), status=201)


def left_open_for_good() -> HttpResponseBase:
    """Forget the end of a block."""
    transaction.atomic().__enter__()
    return HttpResponse(status=201)


@pytest.mark.parametrize("leave_open", [left_open_by_a_stream, left_open_for_good])
def test_success_is_refused_where_the_view_left_a_block_open(
    make_door: MakeDoor, settings: Any, leave_open: Callable[[], HttpResponseBase]
) -> None:
    """Nothing could be committed before its end, when the client would have its 201 already."""
    settings.IDEMPOTENCY = {"MAX_BODY_BYTES": 10}

    def work(request: HttpRequest) -> HttpResponseBase:
        write()
        return leave_open()

    door = make_door(work)
    session = backend_pid()

    for attempts in (1, 2):
        assert door().status_code == 500
        assert not connection.in_atomic_block
        assert backend_pid() == session or settings.DATABASE_VARIANT in {"pgbouncer", "pool"}
        assert Payment.objects.count() == 0
        assert (row(door).status, row(door).attempts) == ("in_progress", attempts)
        assert row(door).last_error == "TransactionManagementError"


def test_a_block_left_open_by_a_view_that_fails_is_rolled_back(make_door: MakeDoor) -> None:
    """All of it, as if the view had ended it."""

    def work(request: HttpRequest) -> HttpResponse:
        transaction.atomic().__enter__()
        write()
        return HttpResponse(status=500)

    door = make_door(work)

    for _ in range(2):
        assert door().status_code == 500
        assert not connection.in_atomic_block
        assert Payment.objects.count() == 0


@pytest.mark.parametrize("end", ["ROLLBACK", "ROLLBACK AND CHAIN"])
def test_success_is_refused_where_the_view_rolled_back_behind_django(
    make_door: MakeDoor, end: str
) -> None:
    """A raw ROLLBACK takes the writes: a 201 that is kept would promise what is not there."""

    def work(request: HttpRequest) -> HttpResponse:
        write()
        with connection.cursor() as cursor:
            cursor.execute(end)
        return HttpResponse(status=201)

    door = make_door(work)

    assert door().status_code == 500
    assert Payment.objects.count() == 0
    assert row(door).status == "in_progress"
    assert row(door).last_error == "TransactionManagementError"


def test_what_the_view_committed_itself_is_not_done_again(make_door: MakeDoor) -> None:
    """A raw COMMIT makes the writes stay, so that to refuse the answer would be to do it twice."""

    def work(request: HttpRequest) -> HttpResponse:
        response = created(request)
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")
        return response

    door = make_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 201
    assert first.content == retry.content
    assert Payment.objects.count() == 1


def test_a_view_that_returns_no_response_is_an_error(make_door: MakeDoor) -> None:
    """As Django has it; and nothing is committed."""

    def work(request: HttpRequest) -> Any:
        write()

    door = make_door(work)

    assert door().status_code == 500
    assert Payment.objects.count() == 0


def test_a_hook_that_fails_after_the_commit_does_not_undo_the_answer(make_door: MakeDoor) -> None:
    """The client sees the hook's error, and with a retry the truth."""

    def work(request: HttpRequest) -> HttpResponse:
        def fail() -> None:
            raise RuntimeError("the mail server is down")

        transaction.on_commit(fail)
        return created(request)

    door = make_door(work)

    assert [door().status_code, door().status_code] == [500, 201]
    assert Payment.objects.count() == 1
    assert row(door).last_error == ""


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_conflict_in_the_database_is_503_and_can_be_retried(
    make_door: MakeDoor, sqlstate: str
) -> None:
    """A deadlock or a serialization failure rolls everything back and asks for a retry."""
    fail = iter([True, False])

    def work(request: HttpRequest) -> HttpResponse:
        response = created(request)
        if next(fail):
            with connection.cursor() as cursor:
                cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$")
        return response

    door = make_door(work)

    first = door()
    assert (first.status_code, problem(first)) == (503, "transaction-conflict")
    assert first.headers["Retry-After"] == "1"
    assert Payment.objects.count() == 0
    assert door().status_code == 201
    assert Payment.objects.count() == 1


def test_a_conflict_in_a_hook_after_the_commit_is_no_rollback(make_door: MakeDoor) -> None:
    """The payment stands, so nobody is told that everything was rolled back."""

    def work(request: HttpRequest) -> HttpResponse:
        def collide() -> None:
            with connection.cursor() as cursor:
                cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")

        transaction.on_commit(collide)
        return created(request)

    door = make_door(work)

    assert [door().status_code, door().status_code] == [500, 201]
    assert Payment.objects.count() == 1


def test_a_failing_exception_handler_is_an_error(make_door: MakeDoor) -> None:
    """It passes, the attempt is recorded, and nothing stays."""

    def fail(_request: HttpRequest, _error: Exception) -> HttpResponse:
        raise LookupError

    def work(request: HttpRequest) -> HttpResponse:
        write()
        raise ZeroDivisionError

    door = make_door(work, exception_handler=fail)

    assert [door().status_code, door().status_code] == [500, 500]
    assert (row(door).attempts, row(door).last_error) == (2, "ZeroDivisionError")
    assert Payment.objects.count() == 0


def count_payments(_request: HttpRequest, _error: Exception) -> HttpResponse:
    """Answer an exception with a look at the database."""
    return HttpResponse(str(Payment.objects.count()), status=402)


def test_the_exception_handler_may_use_the_orm(make_door: MakeDoor) -> None:
    """It runs on the thread of the transaction, sync and async."""

    def work(request: HttpRequest) -> HttpResponse:
        raise Refused

    door = make_door(work, exception_handler=count_payments)

    assert (door().status_code, door().content) == (402, b"0")


@pytest.mark.parametrize("kind", ["function", "async-function"])
def test_without_a_key_the_exception_handler_may_use_the_orm(
    alice: Account, serve: Callable[[Any], None], kind: str
) -> None:
    """Sync and async; of the frameworks' own exception handling it is theirs to say."""

    def work(request: HttpRequest) -> HttpResponse:
        raise Refused

    view = DOORS[kind](work, exception_handler=count_payments)
    serve(view)
    door = Door(view, key="")

    assert (door().status_code, door().content) == (402, b"0")


@pytest.fixture
def other_database(alice: Account) -> Iterator[str]:
    """Give a second alias, with ATOMIC_REQUESTS: another connection to the test database."""
    alias = "other"
    connections.settings[alias] = {**connection.settings_dict, "ATOMIC_REQUESTS": True}
    yield alias
    other: Any = connections[alias]
    other.close()
    other.close_pool()
    del connections[alias]
    del connections.settings[alias]


@pytest.mark.parametrize("error", [Http404, Refused, None])
def test_what_atomic_requests_opened_elsewhere_is_rolled_back_too(
    make_function_door: MakeDoor, other_database: str, error: type[Exception] | None
) -> None:
    """The door turns an exception into an answer, so Django would commit there."""

    def work(request: HttpRequest) -> HttpResponse:
        account = Account.objects.using(other_database).get(user__username="alice")
        account.token = "changed"
        account.save()
        if error:
            raise error
        return HttpResponse(status=503)

    def refuse(_request: HttpRequest, error: Exception) -> HttpResponse | None:
        return HttpResponse(status=402) if isinstance(error, Refused) else None

    door = make_function_door(work, exception_handler=refuse)

    assert door().status_code >= 400
    assert Account.objects.get(user__username="alice").token == ALICE.token


class SyncMiddleware:
    """A middleware that knows no async, as many do."""

    async_capable = False

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response: HttpResponse = self.get_response(request)
        return response


@pytest.mark.parametrize("middleware", [[], ["test_decorators.SyncMiddleware"]])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_what_an_async_view_leaves_behind_writes_nothing(
    alice: Account, serve: Callable[[Any], None], settings: Any, middleware: list[str], client: Any
) -> None:
    """A task that goes on when the view has failed finds no database outside its transaction."""
    settings.MIDDLEWARE = [*middleware, *settings.MIDDLEWARE]
    fails = iter([True, False])

    async def notify() -> None:
        await Account.objects.aget(user__username="alice")
        if next(fails):
            raise ConnectionError

    @idempotent
    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.gather(write_async(), notify())
        return HttpResponse(status=201)

    serve(view)

    async def send_and_idle() -> int:
        headers = {"Authorization": f"Bearer {ALICE.token}", "Idempotency-Key": "k"}
        response = await AsyncClient(raise_request_exception=False).post("/work/", headers=headers)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)
        return int(response.status_code)

    def send() -> int:
        if client is AsyncClient:
            return async_to_sync(send_and_idle)()
        return Door(view, key="k")().status_code  # type: ignore[no-any-return]

    assert (send(), Payment.objects.count()) == (500, 0)
    assert (send(), Payment.objects.count()) == (201, 1)


# Bodies


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)) + b"\r\n", "ünïcode".encode("latin-1")],
    ids=["empty", "binary", "latin-1"],
)
def test_any_bytes_replay(make_door: MakeDoor, body: bytes) -> None:
    """A body is bytes: nothing is decoded or encoded on the way."""
    door = make_door(lambda request: HttpResponse(body, content_type="x/y; charset=latin-1"))

    first, retry = door(), door()

    assert first.content == retry.content == body
    assert first.headers["Content-Type"] == retry.headers["Content-Type"] == "x/y; charset=latin-1"


def test_a_response_without_a_content_type_replays_without_one(make_door: MakeDoor) -> None:
    """A 204 has none, and gets none."""

    def work(request: HttpRequest) -> HttpResponse:
        response = HttpResponse(status=204)
        del response["Content-Type"]
        return response

    door = make_door(work)

    first, retry = door(), door()

    assert first.status_code == retry.status_code == 204
    assert "Content-Type" not in first.headers
    assert "Content-Type" not in retry.headers


def test_headers_of_the_moment_are_not_kept(make_door: MakeDoor) -> None:
    """Cookies, dates, tracing and rate limits belong to one response; all others replay."""

    def work(request: HttpRequest) -> HttpResponse:
        response = HttpResponseRedirect("/next/?a=1")
        for name in ("X-Zebra", "X-Request-ID", "RateLimit", "X-RateLimit-Remaining", "Date"):
            response[name] = "1"
        for name in ("Server-Timing", "traceparent", "b3", "X-Rate-Limit-Left", "X-Amzn-Trace-Id"):
            response[name] = "1"
        response["A-Header"] = "ünïcode 💶"
        response.set_cookie("session", "secret")
        return response

    door = make_door(work)

    first, retry = door(), door()

    assert first.cookies["session"].value == "secret"
    assert not retry.cookies
    headers: Any = row(door).headers
    frameworks = {"Vary", "Allow"}
    kept = [name for name, _ in headers if name not in frameworks]
    assert kept == ["Content-Type", "Location", "X-Zebra", "A-Header"]
    assert retry.headers["A-Header"] == first.headers["A-Header"]
    assert retry.headers["Location"] == "/next/?a=1"


def test_a_template_is_rendered_inside_the_transaction(make_door: MakeDoor) -> None:
    """What a template reads, and what it makes others write, belongs to the answer."""
    seen: list[bool] = []

    def look() -> str:
        seen.append(connection.in_atomic_block)
        return str(write().pk)

    def work(request: HttpRequest) -> HttpResponse:
        django: Any = engines["django"]
        template = django.from_string("payment {{ look }}")
        return TemplateResponse(request, template, {"look": look})

    door = make_door(work)

    first, retry = door(), door()

    assert first.content == retry.content
    assert seen == [True]
    assert Payment.objects.count() == 1


def test_a_streamed_answer_replays_and_stays_whole(make_door: MakeDoor) -> None:
    """A stream within the limit is kept; the first client gets all of it, too."""
    chunks = [b"a" * 10, b"", "ü".encode()]
    door = make_door(lambda request: StreamingHttpResponse(iter(chunks), status=201))

    first, retry = door(), door()

    assert body(first) == retry.content == b"".join(chunks)
    assert retry.status_code == 201


def test_an_asynchronously_streamed_answer_replays(make_door: MakeDoor) -> None:
    """An async stream is kept like a sync one."""

    async def chunks() -> Any:
        yield b"one "
        yield b"two"

    door = make_door(lambda request: StreamingHttpResponse(chunks()))

    assert body(door()) == door().content == b"one two"


def test_a_file_answer_replays(make_door: MakeDoor) -> None:
    """A file within the limit is kept, with the headers that Django gave it."""

    def work(request: HttpRequest) -> FileResponse:
        return FileResponse(io.BytesIO(bytes(range(256))), as_attachment=True, filename="a.bin")

    door = make_door(work)

    first, retry = door(), door()

    assert body(first) == retry.content == bytes(range(256))
    for name in ("Content-Type", "Content-Disposition", "Content-Length"):
        assert first.headers[name] == retry.headers[name]


def _large(kind: str) -> Any:
    async def achunks() -> Any:
        for _ in range(4):
            yield b"x" * 10

    return {
        "plain": lambda: HttpResponse(b"x" * 40),
        "stream": lambda: StreamingHttpResponse(b"x" * 10 for _ in range(4)),
        "async-stream": lambda: StreamingHttpResponse(achunks()),
        "file": lambda: FileResponse(io.BytesIO(b"x" * 40)),  # type: ignore[no-untyped-call]
    }[kind]()


@pytest.mark.parametrize("kind", ["plain", "stream", "async-stream", "file"])
def test_a_large_answer_is_delivered_but_not_kept(
    make_door: MakeDoor, settings: Any, kind: str
) -> None:
    """Past the limit the first client gets it all; a retry learns that it is done, and no more."""
    settings.IDEMPOTENCY = {"MAX_BODY_BYTES": 25}

    def work(request: HttpRequest) -> Any:
        write()
        return _large(kind)

    door = make_door(work)

    assert body(door()) == b"x" * 40
    retry = door()
    assert (retry.status_code, problem(retry)) == (409, "response-not-kept")
    assert "Retry-After" not in retry.headers
    assert Payment.objects.count() == 1


def test_under_asgi_a_long_stream_is_not_read_to_its_end(
    make_function_door: MakeDoor, settings: Any
) -> None:
    """It goes on to its client as it comes, after the answer was saved without it."""
    settings.IDEMPOTENCY = {"MAX_BODY_BYTES": 25}
    keys: list[str] = []

    async def chunks() -> Any:
        for _ in range(5):
            keys.append((await sync_to_async(row)(door)).status)
            yield b"x" * 10

    door = make_function_door(lambda request: StreamingHttpResponse(chunks()))

    async def send() -> bytes:
        headers = {"Authorization": f"Bearer {ALICE.token}", "Idempotency-Key": door.key}
        response: Any = await AsyncClient().post("/work/", headers=headers)
        return b"".join([chunk async for chunk in response])

    assert async_to_sync(send)() == b"x" * 50
    assert keys == ["in_progress"] * 3 + ["completed"] * 2


def test_a_body_of_just_the_limit_is_kept(make_door: MakeDoor, settings: Any) -> None:
    """The limit is the largest body that is kept."""
    settings.IDEMPOTENCY = {"MAX_BODY_BYTES": 30}
    door = make_door(lambda request: HttpResponse(b"x" * 30))

    assert door().content == door().content == b"x" * 30


# Keys, callers, requests


def test_without_a_key_an_optional_view_runs_as_if_undecorated(make_any_door: MakeDoor) -> None:
    """Every request runs, in a transaction where ATOMIC_REQUESTS asks for one."""
    seen: list[Any] = []

    def work(request: HttpRequest) -> HttpResponse:
        seen.append((connection.in_atomic_block, request.idempotency))  # type: ignore[attr-defined]
        return created(request)

    door = make_any_door(work)
    door.key = ""

    assert [door().status_code, door().status_code] == [201, 201]
    assert seen == [(atomic_requests(), None)] * 2
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_methods_that_are_not_covered_run_as_if_undecorated(
    make_any_door: MakeDoor, method: str
) -> None:
    """A key on such a method means nothing, and they are as atomic as they were."""

    def work(request: HttpRequest) -> HttpResponse:
        write()
        if connection.in_atomic_block:
            raise ZeroDivisionError
        return HttpResponse()

    door = make_any_door(work, required=True)

    assert door(method=method).status_code == (500 if atomic_requests() else 200)
    assert Payment.objects.count() == (0 if atomic_requests() else 1)
    assert not IdempotencyKey.objects.exists()


def test_methods_can_be_chosen_per_view(make_door: MakeDoor) -> None:
    """Here PUT honours a key, and POST does not."""
    door = make_door(created, methods={"PUT"})

    assert [door(method="PUT").status_code for _ in range(2)] == [201, 201]
    assert Payment.objects.count() == 1
    assert [door().status_code for _ in range(2)] == [201, 201]
    assert Payment.objects.count() == 3


def test_no_methods_are_no_methods(make_door: MakeDoor) -> None:
    """An empty choice is a choice: nothing is covered."""
    door = make_door(created, methods=[])

    assert [door().status_code, door().status_code] == [201, 201]
    assert Payment.objects.count() == 2


def test_a_required_key_is_required(make_door: MakeDoor) -> None:
    """Without it the view does not run."""
    door = make_door(created, required=True)
    door.key = ""

    response = door()

    assert (response.status_code, problem(response)) == (400, "missing-key")
    assert Payment.objects.count() == 0


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"a', "a, b", '"a", "b"', "ü", "a\x7f"])
def test_an_invalid_key_is_refused(make_door: MakeDoor, key: str) -> None:
    """A bad key never lets the view run unprotected."""
    door = make_door(created)

    response = door(Idempotency_Key=key)

    assert (response.status_code, problem(response)) == (400, "invalid-key")
    assert Payment.objects.count() == 0


def test_the_quoted_and_the_bare_form_name_one_key(make_door: MakeDoor) -> None:
    """A client may change how it writes the key."""
    door = make_door(created)

    contents = {door(Idempotency_Key=key).content for key in ("k", '"k"', '"k";a=1; b')}

    assert len(contents) == 1
    assert Payment.objects.count() == 1


def test_another_request_with_the_same_key_is_refused(make_door: MakeDoor) -> None:
    """Another body, query, method or path under the same key is 422, and does not run."""
    door = make_door(created, methods={"POST", "PUT"})
    door({"amount": 1})

    for response in (
        door({"amount": 2}),
        door({"amount": 1}, method="PUT"),
        door(b'{"amount": 1}', Content_Type="text/plain"),
    ):
        assert (response.status_code, problem(response)) == (422, "key-reused")
        assert b"nonce" not in response.content
    for path in ("/other/", "/work/?a=1"):
        door.path = path
        assert problem(door({"amount": 1})) == "key-reused"
    assert Payment.objects.count() == 1


def test_another_request_is_refused_even_after_a_failure(make_door: MakeDoor) -> None:
    """The key stays with the request it was first sent with, whatever became of that."""

    def work(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    door = make_door(work)
    door({"amount": 1})

    assert problem(door({"amount": 2})) == "key-reused"


def test_the_same_request_written_otherwise_is_the_same(make_door: MakeDoor) -> None:
    """Order of names, form of numbers and negotiation headers are no part of it."""
    door = make_door(created)

    first = door(b'{"a": 1.50, "b": [null]}', Accept="text/html")
    retry = door(b'{"b":[null],"a":15e-1}', Accept_Language="de")

    assert first.content == retry.content


def sent_id(request: HttpRequest) -> str:
    """Leave out of the body whatever is not its id."""
    return str(json.loads(request.body)["id"])


def test_a_view_can_say_what_of_the_body_counts(make_door: MakeDoor) -> None:
    """Here the time of sending does not; the id does, and all that is not body counts as ever."""
    door = make_door(created, fingerprint=sent_id, methods={"POST", "PUT"})

    first, retry = door({"id": 1, "sent": "10:00"}), door({"sent": "10:01", "id": 1})

    assert first.content == retry.content
    for other in (
        door({"id": 2, "sent": "10:00"}),
        door({"id": 1}, method="PUT"),
        door(b'{"id": 1}', Content_Type="text/plain"),
    ):
        assert (other.status_code, problem(other)) == (422, "key-reused")
    for path in ("/other/", "/work/?a=1"):
        door.path = path
        assert problem(door({"id": 1})) == "key-reused"
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("part", [None, 7, bytearray(b"x")])
def test_what_cannot_stand_for_a_body_stops_the_view(make_door: MakeDoor, part: Any) -> None:
    """A fingerprint of neither bytes nor text is an error, before anything runs or is written."""
    door = make_door(created, fingerprint=lambda request: part)

    with pytest.raises(TypeError, match=rf"must give bytes or text .* not {type(part).__name__}\."):
        Client().post("/work/", headers=door.headers())
    assert not IdempotencyKey.objects.exists()
    assert Payment.objects.count() == 0


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_multipart_retry_may_have_another_boundary(make_door: MakeDoor, method: str) -> None:
    """The parts are what counts, file and all; another file is another request."""

    def work(request: HttpRequest) -> HttpResponse:
        for upload in request.FILES.values():
            assert isinstance(upload, UploadedFile)
            assert upload.read() in {b"receipt", b"other"}
        return created(request)

    door = make_door(work)

    def send(boundary: str, content: bytes) -> Any:
        parts = {"amount": "12.50", "file": SimpleUploadedFile("a.bin", content)}
        media_type = f"multipart/form-data; boundary={boundary}"
        return door(encode_multipart(boundary, parts), method=method, Content_Type=media_type)

    assert send("one", b"receipt").content == send("two", b"receipt").content
    assert problem(send("two", b"other")) == "key-reused"
    assert Payment.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary="),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x--", "multipart/form-data; boundary=x; charset=hex"),
        (b"--x--", "multipart/form-data; boundary=x; charset=idna"),
        (b"a=1&" * 2000, "application/x-www-form-urlencoded"),
        (b"x" * 3_000_000, "application/octet-stream"),
    ],
    ids=["no-boundary", "empty-boundary", "cut-off", "hex", "idna", "many-fields", "large"],
)
def test_a_body_that_django_refuses_is_refused(
    make_door: MakeDoor, body: bytes, media_type: str
) -> None:
    """Whether by us or by the view that reads it: a 4xx, or the view has run under its key."""

    def work(request: HttpRequest) -> HttpResponse:
        request.POST.get("a")
        return created(request)

    door = make_door(work)

    statuses = {door(body, Content_Type=media_type).status_code for _ in range(2)}

    assert statuses <= {201, 400, 413, 415}
    assert Payment.objects.count() == (1 if statuses == {201} else 0)


@configured(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(header=st.text(st.characters(max_codepoint=255), max_size=300))
def test_any_bytes_in_the_header_are_a_key_or_refused(
    make_function_door: MakeDoor, header: str
) -> None:
    """Never a 500, and the view never runs without a claim of its own."""
    door = make_function_door(created)
    payments, keys = Payment.objects.count(), IdempotencyKey.objects.count()

    response = door(Idempotency_Key=header)

    ran = Payment.objects.count() - payments
    assert ran == IdempotencyKey.objects.count() - keys
    if response.status_code == 201:
        assert ran == 1 or response.headers["Idempotent-Replayed"] == "true"
    else:
        assert problem(response) == "invalid-key"


def test_the_same_key_of_another_caller_is_another_key(make_door: MakeDoor) -> None:
    """Nobody ever sees a byte of somebody else's answer."""
    door = make_door(created)
    alices = door()

    door.token = BOB.token
    bobs = door()

    assert bobs.status_code == 201
    assert "Idempotent-Replayed" not in bobs.headers
    assert bobs.content != alices.content
    assert Payment.objects.count() == 2


def test_an_anonymous_caller_is_refused(make_door: MakeDoor) -> None:
    """A scope that strangers share would hand one of them the answer of another."""
    door = make_door(created)
    door.token = None

    response = door()

    assert (response.status_code, problem(response)) == (400, "unscoped-caller")
    assert Payment.objects.count() == 0


def test_a_view_can_say_how_anonymous_callers_are_scoped(make_door: MakeDoor) -> None:
    """A webhook's sender is known by something else than a user."""
    door = make_door(created, scope=lambda request: request.headers.get("X-Partner"))
    door.token = None

    first, retry = door(X_Partner="partner:1"), door(X_Partner="partner:1")
    other = door(X_Partner="partner:2")

    assert first.content == retry.content != other.content
    assert Payment.objects.count() == 2
    assert problem(door()) == "unscoped-caller"


def test_the_tenant_goes_in_front_of_the_scope(make_door: MakeDoor, settings: Any) -> None:
    """One user's keys for two tenants are two keys, and a view can say who the tenant is."""
    settings.IDEMPOTENCY = {"TENANT": "test_http.tenant_of_header"}
    door = make_door(created)

    contents = {door(X_Tenant=tenant).content for tenant in ("a", "b", "a")}
    assert len(contents) == 2

    door = make_door(created, tenant=lambda request: "c/d")
    door()
    user = Account.objects.get(user__username="alice").user_id
    assert row(door).scope == f"tenant:c%2Fd/user:{user}"


def test_an_expired_key_counts_as_never_seen(make_door: MakeDoor) -> None:
    """Expired rows are taken over in place, by any request, whether or not the purge has run."""
    door = make_door(created)
    first = door({"amount": 1})
    IdempotencyKey.objects.update(created_at="2026-01-01T00:00Z", expires_at="2026-01-02T00:00Z")

    second, retry = door({"amount": 2}), door({"amount": 2})

    assert first.content != second.content == retry.content
    assert Payment.objects.count() == 2
    assert row(door).attempts == 1
    assert row(door).expires_at - row(door).created_at == timedelta(hours=24)


def test_an_expired_failure_counts_as_never_seen(make_door: MakeDoor) -> None:
    """The attempts before do not count, and the last error is forgotten."""
    outcomes = iter([ZeroDivisionError, None])

    def work(request: HttpRequest) -> HttpResponse:
        if error := next(outcomes):
            raise error
        return created(request)

    door = make_door(work)
    door({"amount": 1})
    IdempotencyKey.objects.update(created_at="2026-01-01T00:00Z", expires_at="2026-01-02T00:00Z")

    assert door({"amount": 2}).status_code == 201
    assert (row(door).attempts, row(door).last_error) == (1, "")


def test_the_lifetime_can_be_chosen_per_view(make_door: MakeDoor) -> None:
    """`ttl` goes before the setting."""
    door = make_door(created, ttl=timedelta(minutes=5))
    door()

    assert row(door).expires_at - row(door).created_at == timedelta(minutes=5)


def test_the_view_can_see_its_attempt(make_door: MakeDoor) -> None:
    """`request.idempotency` tells the key, the scope and the number of the attempt."""
    outcomes = iter([ZeroDivisionError, None])
    seen: list[Any] = []

    def work(request: HttpRequest) -> HttpResponse:
        seen.append(request.idempotency)  # type: ignore[attr-defined]
        if error := next(outcomes):
            raise error
        return HttpResponse()

    door = make_door(work)
    door(), door()

    user = Account.objects.get(user__username="alice").user_id
    assert [(a.key, a.scope, a.number) for a in seen] == [
        (door.key, f"user:{user}", 1),
        (door.key, f"user:{user}", 2),
    ]


def test_the_row_says_what_was_done(make_door: MakeDoor) -> None:
    """The operation is the method and the route, and the row is completed with its answer."""
    door = make_door(created)
    response = door()

    key = row(door)
    assert key.operation == "POST work/"
    assert (key.status, key.status_code, bytes(key.body or b"")) == (
        "completed",
        201,
        response.content,
    )
    assert key.completed_at is not None
    assert key.completed_at >= key.created_at


def test_an_unreachable_store_stops_the_view(make_door: MakeDoor) -> None:
    """Without a claim nothing runs: 503, and the next request may find the store again."""
    door = make_door(created, scope=lambda request: "partner:1")
    door.token = None
    with unreachable_database():
        response = door()

    assert (response.status_code, problem(response)) == (503, "store-unavailable")
    assert response.headers["Retry-After"] == "1"
    assert Payment.objects.count() == 0
    assert door().status_code == 201


def test_a_store_that_is_lost_before_the_view_stops_it(
    make_door: MakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is Django that connects once more, and cannot."""
    door = make_door(created, scope=lambda request: "partner:1")
    door.token = None

    def lose(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("BEGIN"):
            with socket(fileno=os.dup(connection.connection.fileno())) as link:
                link.shutdown(SHUT_RDWR)
            patched.setitem(connection.settings_dict, "PORT", "1")  # nobody listens there
        return execute(sql, *rest)

    with monkeypatch.context() as patched, connection.execute_wrapper(lose):
        response = door()

    assert (response.status_code, problem(response)) == (503, "store-unavailable")
    assert Payment.objects.count() == 0
    assert door().status_code == 201


def test_what_a_middleware_puts_around_statements_ends_with_it(make_door: MakeDoor) -> None:
    """Django takes the last one away again, whosever that is."""
    door = make_door(created)
    seen: list[str] = []

    def watch(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(watch):
        assert door().status_code == 201

    assert seen
    assert watch not in connection.execute_wrappers


def test_a_store_that_cannot_be_written_stops_the_view(make_function_door: MakeDoor) -> None:
    """After a failover the old connection may lead to a standby."""
    door = make_function_door(created)
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        response = door()
        cursor.execute("SET default_transaction_read_only = off")

    assert (response.status_code, problem(response)) == (503, "store-unavailable")
    assert door().status_code == 201


def test_people_get_a_page(make_door: MakeDoor) -> None:
    """A browser is told the same facts as a program, in a page; the media type decides."""
    door = make_door(created, required=True)
    door.key = ""

    page = door(Accept="text/html,application/xhtml+xml,*/*;q=0.8")

    assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert b"<h1>This form cannot be sent</h1>" in page.content
    assert b">Idempotency-Key is missing</a>" in page.content
    assert problem(door(Accept="*/*")) == "missing-key"
    assert problem(door(Accept="application/json, text/html;q=0.9")) == "missing-key"


def test_people_get_a_document_where_the_project_has_no_templates(
    make_door: MakeDoor, settings: Any
) -> None:
    """An API without a template engine still answers with the problem."""
    settings.TEMPLATES = []
    door = make_door(created, required=True)
    door.key = ""

    assert problem(door(Accept="text/html")) == "missing-key"


# Wrong use


def test_a_class_is_refused() -> None:
    """The sentence says how to decorate a class."""
    with pytest.raises(TypeError, match="method_decorator"):

        @idempotent
        class AView(View):
            pass


def test_a_method_is_refused() -> None:
    """Its first argument is not the request."""
    with pytest.raises(TypeError, match="method_decorator"):

        class AView(View):
            @idempotent
            def post(self, request: HttpRequest) -> HttpResponse:
                return HttpResponse()


def test_a_framework_view_is_refused() -> None:
    """A view of Django REST framework authenticates inside, where the door cannot look."""

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    view.cls = View  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="REST framework"):
        idempotent(view)


def test_decorating_twice_is_refused() -> None:
    """One claim per request is enough, and two would be two transactions."""
    view = idempotent(created)

    with pytest.raises(TypeError, match="already"):
        idempotent(view)


def test_what_cannot_be_called_is_refused() -> None:
    """A view is a callable."""
    with pytest.raises(TypeError, match="cannot be called"):
        idempotent("view")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"methods": ["GET"]}, "methods= must be"),
        ({"methods": "POST"}, "methods= must be"),
        ({"ttl": 60}, "ttl= must be"),
        ({"ttl": timedelta(0)}, "ttl= must be"),
        ({"wait": -1}, "wait= must be"),
        ({"wait": True}, "wait= must be"),
        ({"scope": "user"}, "scope= must be"),
        ({"scope": write_async}, "scope= must be"),
        ({"tenant": "user"}, "tenant= must be"),
        ({"fingerprint": "body"}, "fingerprint= must be"),
        ({"fingerprint": write_async}, "fingerprint= must be"),
        ({"store": True}, "store= must be"),
        ({"exception_handler": 402}, "exception_handler= must be"),
    ],
)
def test_wrong_arguments_are_refused_where_the_view_is_defined(
    options: dict[str, Any], sentence: str
) -> None:
    """Not with the first request."""
    with pytest.raises((TypeError, ValueError), match=sentence):
        idempotent(**options)


def test_other_than_a_request_is_refused() -> None:
    """What is called without a request cannot be answered."""
    with pytest.raises(TypeError, match="HttpRequest"):
        idempotent(created)("no request")  # type: ignore[arg-type]


def test_an_open_transaction_is_refused(alice: Account) -> None:
    """Inside somebody else's transaction the claim would not be committed before the view runs."""
    request = RequestFactory().post("/", headers={"Idempotency-Key": "k"})
    request.user = alice.user

    with transaction.atomic(), pytest.raises(RuntimeError, match="open its transaction itself"):
        idempotent(created)(request)
    assert Payment.objects.count() == 0


def test_autocommit_off_is_refused(alice: Account) -> None:
    """A claim that nobody commits protects nothing."""
    request = RequestFactory().post("/", headers={"Idempotency-Key": "k"})
    request.user = alice.user
    transaction.set_autocommit(False)
    try:
        with pytest.raises(RuntimeError, match="AUTOCOMMIT"):
            idempotent(created)(request)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.parametrize("decorated", ["post", "dispatch"])
def test_a_method_of_a_class_can_be_decorated(alice: Account, decorated: str) -> None:
    """`method_decorator` works on a single handler as well, where ATOMIC_REQUESTS is off."""

    @method_decorator(idempotent(required=True), name=decorated)
    class AView(View):
        def post(self, request: HttpRequest) -> HttpResponse:
            return created(request)

    contents = set()
    for _ in range(2):
        request = RequestFactory().post("/", headers={"Idempotency-Key": "k"})
        request.user = alice.user
        contents.add(AView.as_view()(request).content)  # type: ignore[attr-defined]
    assert len(contents) == 1


class InsideTestCase(TestCase):
    """In Django's TestCase everything works on the one connection, inside its transaction."""

    def test_replays(self) -> None:
        """A user's own tests need no committed data."""
        account = seed()[0]
        contents = set()
        for _ in range(2):
            request = RequestFactory().post("/", headers={"Idempotency-Key": "k"})
            request.user = account.user
            contents.add(idempotent(created)(request).content)
        assert len(contents) == 1
        assert Payment.objects.count() == 1

    def test_keeps_a_refusal(self) -> None:
        """The claim outlives the rollback, as it does elsewhere."""
        account = seed()[0]

        @idempotent
        def view(request: HttpRequest) -> HttpResponse:
            write()
            raise Http404(uuid.uuid4().hex)

        key = uuid.uuid4().hex
        request = RequestFactory().post("/", headers={"Idempotency-Key": key})
        request.user = account.user
        first, retry = view(request), view(request)

        assert first.status_code == retry.status_code == 404
        assert retry.headers["Idempotent-Replayed"] == "true"
        assert Payment.objects.count() == 0
        assert IdempotencyKey.objects.get(key=key).attempts == 1

    def test_rolls_back(self) -> None:
        """A failed attempt leaves nothing, and the next one runs."""
        account = seed()[0]
        outcomes = iter([ZeroDivisionError, None])

        @idempotent
        def view(request: HttpRequest) -> HttpResponse:
            response = created(request)
            if error := next(outcomes):
                raise error
            return response

        request = RequestFactory().post("/", headers={"Idempotency-Key": "k"})
        request.user = account.user
        with pytest.raises(ZeroDivisionError):
            view(request)
        assert Payment.objects.count() == 0
        assert view(request).status_code == 201
        assert Payment.objects.count() == 1
