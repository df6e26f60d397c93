"""Half a body is not taken for the request: it is refused before the claim and before the view."""

import gzip
import io
import random
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import Any
from unittest import mock

import httpx
import pytest
from asgiref.sync import async_to_sync
from conftest import DOORS, Door, MakeDoor, ServeShop
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import StopUpload, TemporaryFileUploadHandler
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.test.client import encode_multipart
from support import DEADLINE
from test_decorators import created, problem, row

from idempotency.models import IdempotencyKey
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE

BOUNDARY = "a-boundary"
FORM = "application/x-www-form-urlencoded"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def multipart(**fields: Any) -> bytes:
    """Return the fields as a multipart body."""
    return encode_multipart(BOUNDARY, fields)


LARGE = SimpleUploadedFile("receipt.bin", bytes(range(256)) * 400)

WHOLE = {
    "json": ("application/json", b"12345678"),  # its beginnings are JSON, too
    "form": (FORM, b"card=tok_visa&amount=100.00"),
    "multipart": (MULTIPART, multipart(card="tok_visa", amount="100.00")),
    "file": (MULTIPART, multipart(amount="100.00", receipt=LARGE)),
}
"""Bodies by their kind."""


class Cut(io.BytesIO):
    """What a WSGI server reads from a client that is cut off: less than it was promised."""


def send(door: Door, body: bytes, content_type: str, arrived: int, **more: Any) -> Any:
    """Send a body of which the first bytes arrive."""
    client = Client(raise_request_exception=False)
    more = {"wsgi.input": Cut(body[:arrived])} | more
    return client.generic("POST", door.path, body, content_type, headers=door.headers(), **more)


@pytest.mark.parametrize("kind", WHOLE)
def test_fault_f1_half_a_body_is_refused_at_every_entry_point(
    make_any_door: MakeDoor, kind: str
) -> None:
    """No row and no run; the honest retry with the whole body runs, once."""
    door = make_any_door(created)
    content_type, body = WHOLE[kind]

    for arrived in (len(body) // 2, len(body) - 1):
        response = send(door, body, content_type, arrived)

        assert response.status_code == 400, arrived
        assert not IdempotencyKey.objects.exists()
        assert not Payment.objects.exists()

    first, retry = (send(door, body, content_type, len(body)) for _ in range(2))
    assert first.status_code == retry.status_code == 201
    assert first.content == retry.content
    assert Payment.objects.count() == 1


def test_fault_f1_the_client_is_told_what_has_happened(make_function_door: MakeDoor) -> None:
    """By a problem of its own."""
    response = send(make_function_door(created), b"x" * 10, "text/plain", 7)

    assert (response.status_code, problem(response)) == (400, "incomplete-body")
    assert "Of 10 bytes 7 have arrived." in response.json()["detail"]


@pytest.mark.parametrize("attribute", ["POST", "body"])
@pytest.mark.parametrize("kind", ["form", "file"])
def test_fault_f1_it_does_not_matter_who_has_read_the_body(
    make_door: MakeDoor, settings: Any, attribute: str, kind: str
) -> None:
    """A middleware may have read or parsed it before."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.read_{attribute.lower()}"]
    door = make_door(created)
    content_type, body = WHOLE[kind]

    assert send(door, body, content_type, len(body) - 4).status_code == 400
    assert not IdempotencyKey.objects.exists()
    assert send(door, body, content_type, len(body)).status_code == 201


def _reading(attribute: str) -> Any:
    def middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        def read(request: HttpRequest) -> Any:
            getattr(request, attribute)
            return get_response(request)

        return read

    return middleware


read_post, read_body = map(_reading, ("POST", "body"))


@pytest.mark.parametrize("content_type", [FORM, MULTIPART])
def test_fault_f1_a_form_that_has_lost_its_key_does_not_run_without(
    make_door: MakeDoor, content_type: str
) -> None:
    """Its view would run on half a form, as if it were one without a key."""
    door = make_door(created, form=True)
    door.key = ""
    key = str(uuid.uuid4())
    body = (
        f"amount=1&idempotency_key={key}".encode()
        if content_type == FORM
        else multipart(amount=1, idempotency_key=key)
    )

    for arrived in (0, body.index(b"idempotency_key") - 1, body.index(key.encode()) + 9):
        response = send(door, body, content_type, arrived)
        assert response.status_code == 400, arrived
        assert not Payment.objects.exists()

    assert not IdempotencyKey.objects.exists()
    assert send(door, body, content_type, len(body)).status_code == 201
    assert IdempotencyKey.objects.get().key == key


READS: dict[str, Callable[[HttpRequest], object]] = {
    "nothing": lambda request: None,
    "some": lambda request: request.read(3),
    "all": lambda request: request.read(),
    "lines": list,
}


@pytest.mark.parametrize("status", [201, 422])
@pytest.mark.parametrize("kind", ["function", "async-class"])
@pytest.mark.parametrize("reads", READS)
def test_fault_f1_a_body_that_the_fingerprint_leaves_unread_is_looked_at_before_the_save(
    alice: Account, serve: Callable[[Any], None], reads: str, kind: str, status: int
) -> None:
    """However much of it the view reads: nothing is committed or stored of what was cut."""

    def work(request: HttpRequest) -> HttpResponse:
        READS[reads](request)
        created(request)
        return HttpResponse(status=status)

    view = DOORS[kind](work, fingerprint=lambda request: request.headers["Digest"])
    serve(view)
    door = Door(view)
    body = b"first line\nsecond line\n" * 10_000

    for arrived in (0, 2, 100_000, len(body) - 1):
        response = send(door, body, "text/csv", arrived, HTTP_DIGEST="1")
        assert (response.status_code, problem(response)) == (400, "incomplete-body")
        assert not Payment.objects.exists()
        assert (row(door).status, row(door).last_error) == ("in_progress", "IncompleteBody")

    assert send(door, body, "text/csv", len(body), HTTP_DIGEST="1").status_code == status
    assert send(door, body, "text/csv", len(body), HTTP_DIGEST="1").status_code == status
    assert Payment.objects.count() == 1


def test_fault_f1_a_raised_refusal_of_half_a_body_is_not_stored(alice: Account, serve: Any) -> None:
    """A view that misses the end may refuse for it, with what would be stored for a day."""

    def work(request: HttpRequest) -> HttpResponse:
        if request.read() != b"whole":
            raise ValueError
        return created(request)

    def refuse(_request: HttpRequest, error: Exception) -> HttpResponse | None:
        return HttpResponse(status=422) if isinstance(error, ValueError) else None

    view = DOORS["function"](work, fingerprint=lambda request: "", exception_handler=refuse)
    serve(view)
    door = Door(view)

    assert send(door, b"whole", "text/plain", 3).status_code == 400
    assert (row(door).attempts, row(door).last_error) == (1, "IncompleteBody")
    assert send(door, b"whole", "text/plain", 5).status_code == 201


@pytest.mark.parametrize("kind", ["function", "async-function", "class", "async-class"])
@pytest.mark.parametrize("swallow", ["POST", "body", "read"])
def test_fault_f1_an_error_that_a_middleware_has_caught_is_a_missing_end(
    alice: Account, serve: Any, settings: Any, swallow: str, kind: str
) -> None:
    """As Django's own middleware for CSRF tokens does: what is left of the form is empty."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.swallow_{swallow.lower()}"]
    view = DOORS[kind](created, form=True)
    serve(view)
    door = Door(view, key="")
    body = f"amount=1&idempotency_key={uuid.uuid4()}".encode()

    for stream in (Reset(body[:10]), Cut(body[:10])):
        response = send(door, body, FORM, 10, **{"wsgi.input": stream})
        assert response.status_code == 400
        assert not Payment.objects.exists()
    assert not IdempotencyKey.objects.exists()


def _swallowing(read: Callable[[HttpRequest], object]) -> Any:
    def middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        def swallow(request: HttpRequest) -> Any:
            with suppress(OSError):
                read(request)
            return get_response(request)

        return swallow

    return middleware


swallow_post = _swallowing(lambda request: request.POST)
swallow_body = _swallowing(lambda request: request.body)
swallow_read = _swallowing(lambda request: request.read(10))


def test_fault_f1_a_body_that_was_decompressed_is_measured_as_it_arrived(
    make_function_door: MakeDoor, settings: Any
) -> None:
    """A middleware has put a shorter one in its place, as it also may a longer one."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.decompress"]
    door = make_function_door(created)
    for content in (b"{}", b"x" * 1000):
        body = gzip.compress(content)
        door.key = str(uuid.uuid4())
        assert send(door, body, "text/plain", len(body) - 9).status_code == 400
        assert send(door, body, "text/plain", len(body)).status_code == 201


def decompress(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Return a middleware that replaces the body, where that is whole."""

    def middleware(request: Any) -> Any:
        with suppress(EOFError):
            request._body = gzip.decompress(request.body)
        return get_response(request)

    return middleware


def test_fault_f1_chunks_that_a_middleware_has_put_together_are_taken(
    make_function_door: MakeDoor, settings: Any
) -> None:
    """It knows where they end."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.put_together"]
    door = make_function_door(created)
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}

    assert send(door, b"whole", "text/plain", 5, **chunked).status_code == 201


def put_together(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Return a middleware that reads what its server has taken out of the chunks."""

    def middleware(request: Any) -> Any:
        request._body = request.META["wsgi.input"].read()
        return get_response(request)

    return middleware


def test_fault_f1_an_upload_that_a_handler_has_reset_is_not_read_on(
    make_function_door: MakeDoor, settings: Any
) -> None:
    """It wants no more of it."""
    settings.FILE_UPLOAD_HANDLERS = [f"{__name__}.Resetting"]
    door = make_function_door(created)
    body = multipart(receipt=SimpleUploadedFile("large.bin", b"x" * 5_000_000))
    stream = Cut(body)

    assert send(door, body, MULTIPART, 0, **{"wsgi.input": stream}).status_code == 400
    assert stream.tell() < 1_000_000
    assert not Payment.objects.exists()


class Resetting(TemporaryFileUploadHandler):
    """Ends an upload at its first chunk."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """End it."""
        raise StopUpload(connection_reset=True)


class Reset(Cut):
    """A connection that is reset after the bytes that have arrived."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return them, and fail after that."""
        found = super().read(size)
        if not found:
            raise ConnectionResetError
        return found


def test_fault_f1_a_reset_while_the_rest_is_read_is_a_missing_end(
    alice: Account, serve: Any
) -> None:
    """It is no error of the server's."""
    view = DOORS["function"](created, fingerprint=lambda request: "")
    serve(view)
    door = Door(view)

    response = send(door, b"whole", "text/plain", 3, **{"wsgi.input": Reset(b"who")})

    assert (response.status_code, problem(response)) == (400, "incomplete-body")
    assert not Payment.objects.exists()


def test_fault_f1_chunks_without_an_end_are_refused_under_wsgi(make_any_door: MakeDoor) -> None:
    """Django reads no byte of them: two different bodies would be one request."""
    door = make_any_door(created)
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}

    response = send(door, b"x" * 10, "application/json", 10, **chunked)

    assert (response.status_code, problem(response)) == (411, "length-required")
    assert not IdempotencyKey.objects.exists()
    assert not Payment.objects.exists()


def test_fault_f1_a_stream_that_cannot_be_measured_is_an_error(
    alice: Account, serve: Any, settings: Any
) -> None:
    """Not silence: what a middleware puts in the stream's place may end early."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.replace_stream"]
    serve(DOORS["function"](created))
    content_type, body = WHOLE["multipart"]

    with pytest.raises(RuntimeError, match="replaced the request's stream by Other"):
        Client().generic("POST", "/work/", body, content_type, headers=Door(None).headers())
    assert not IdempotencyKey.objects.exists()


def replace_stream(get_response: Any) -> Any:
    """Return a middleware that reads the stream by one of its own."""

    class Other:
        def __init__(self, stream: Any) -> None:
            self.read, self.readline = stream.read, stream.readline

    def middleware(request: Any) -> Any:
        request._stream = Other(request._stream)
        return get_response(request)

    return middleware


# Under ASGI


def over_asgi(
    door: Door, body: bytes, content_type: str, *, arrived: bytes, is_chunked: bool = False
) -> int:
    """Send a request whose body an ASGI server has put into a file; return the response's status.

    Without chunks the client has announced the length of ``body``, whatever has arrived.
    """
    headers = door.headers()
    if is_chunked:
        headers |= {"Content-Type": content_type, "Transfer-Encoding": "chunked"}

    def spool(*_: Any) -> Any:
        file = SpooledTemporaryFile(max_size=1000)  # noqa: SIM115  # the request closes it
        file.write(arrived)
        file.seek(0)
        return file

    async def send() -> int:
        client = AsyncClient(raise_request_exception=False)
        data = b"" if is_chunked else body
        response: Any = await client.generic("POST", door.path, data, content_type, headers=headers)
        return int(response.status_code)

    with mock.patch("django.test.client.LimitedStream", spool):
        return async_to_sync(send)()


@pytest.mark.parametrize("kind", WHOLE)
def test_fault_f1_half_a_body_is_refused_under_asgi(make_door: MakeDoor, kind: str) -> None:
    """Where a server passes it on."""
    door = make_door(created)
    content_type, body = WHOLE[kind]

    for length in (0, len(body) - 4):
        assert over_asgi(door, body, content_type, arrived=body[:length]) == 400
        assert not IdempotencyKey.objects.exists()

    for _ in range(2):
        assert over_asgi(door, body, content_type, arrived=body) == 201
    assert Payment.objects.count() == 1


def test_fault_f1_an_unread_body_is_measured_under_asgi(alice: Account, serve: Any) -> None:
    """Without reading it: it is all there before the view runs."""
    view = DOORS["async-function"](created, fingerprint=lambda request: "")
    serve(view)
    door = Door(view)

    assert over_asgi(door, b"whole", "text/plain", arrived=b"who") == 400
    assert not IdempotencyKey.objects.exists()
    assert over_asgi(door, b"whole", "text/plain", arrived=b"whole") == 201


def test_fault_f1_chunks_are_whole_under_asgi(make_door: MakeDoor) -> None:
    """The server has put them together, and tells where they end."""
    door = make_door(created)
    content_type, body = WHOLE["json"]

    assert over_asgi(door, body, content_type, arrived=body, is_chunked=True) == 201
    assert over_asgi(door, body, content_type, arrived=body) == 201
    assert over_asgi(door, body, content_type, arrived=body[:3], is_chunked=True) in {400, 422}
    assert Payment.objects.count() == 1


# On real servers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "path", "scheme"),
    [
        ("wsgi", "/payments/", "Bearer"),
        ("wsgi", "/async/payments/", "Bearer"),
        ("wsgi", "/api/payments/", "Token"),
        ("asgi", "/async/payments/", "Bearer"),
    ],
)
@pytest.mark.parametrize("kind", ["form", "multipart"])
def test_fault_f1_a_client_that_is_cut_off_pays_once_and_the_whole(  # noqa: PLR0913, PLR0917
    alice: Account, serve_shop: ServeShop, server: str, path: str, scheme: str, kind: str
) -> None:
    """With FIN in the middle of the upload, as a killed process leaves it."""
    http = serve_shop(server)
    chance = random.Random(f"{server}{path}{kind}")  # noqa: S311  # repeatable, not secret
    key = str(uuid.uuid4())
    order = {"currency": "EUR", "card": "tok_visa", "amount": "100.00"}
    content_type, body = {
        "form": (FORM, "&".join(f"{name}={value}" for name, value in order.items()).encode()),
        "multipart": (MULTIPART, multipart(**order)),
    }[kind]
    headers = {
        "Authorization": f"{scheme} {ALICE.token}",
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Idempotency-Key": f'"{key}"',
        "Host": "testserver",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    for arrived in (len(body) - 1, len(body) - 4, *(chance.randrange(len(body)) for _ in range(4))):
        raw = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body[:arrived]
        assert status_of(http, raw) in {None, 400}, arrived
        assert not Payment.objects.exists()
        assert not IdempotencyKey.objects.exists()

    del headers["Host"]
    whole = [http.post(path, content=body, headers=headers) for _ in range(2)]
    assert [(it.status_code, it.json()["amount"]) for it in whole] == [(201, "100.00")] * 2
    assert Payment.objects.count() == 1


def status_of(http: httpx.Client, raw: bytes) -> int | None:
    """Send bytes, end the sending side, and return the status of the response, if there is one."""
    address = (str(http.base_url.host), http.base_url.port or 80)
    with socket.create_connection(address, timeout=DEADLINE) as link:
        link.sendall(raw)
        link.shutdown(socket.SHUT_WR)
        with link.makefile("rb") as answer:
            line = answer.read().partition(b"\r\n")[0].split()
    return int(line[1]) if line else None
