"""For the tests of your project: retries, and what can become of a first request.

::

    def test_a_payment_is_taken_once(client):
        pay = partial(client.post, "/payments/", {"amount": "10"})
        assert_safe_to_retry(pay, effect=Payment.objects.count)

It works in ``TestCase``, where all is one transaction, in ``TransactionTestCase`` and with
pytest-django; with Django's test clients, and with ``APIClient`` of Django REST framework.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from django.db import connections
from django.db.models.functions import Now

from . import claims, database
from .answers import REPLAYED_HEADER, Answer
from .exceptions import IdempotencyError
from .http import KEY_HEADER
from .models import IdempotencyKey

__all__ = [
    "assert_problem",
    "assert_replay",
    "assert_safe_to_retry",
    "expire",
    "first_request_running",
    "worker_dies",
]


def assert_safe_to_retry(
    send: Callable[..., Any],
    *args: Any,
    effect: Callable[[], object] | None = None,
    key: str | None = None,
    **kwargs: Any,
) -> Any:
    """Send a request twice with one key, see that the second one runs nothing; give the first.

    Args:
        send: A method of a test client, such as ``client.post``. All other arguments are for it.
        effect: Gives something that the request must change, and its retry must not, such as
            ``Payment.objects.count``.
        key: The key to send; a fresh one by default.

    Raises:
        AssertionError: The retry was not given the first answer, or the effect is not as it must
            be. The message says which.
    """
    headers = {**(kwargs.pop("headers", None) or {}), KEY_HEADER: f'"{key or uuid4()}"'}
    before = effect() if effect else None
    first = send(*args, headers=headers, **kwargs)
    after = effect() if effect else None
    retry = send(*args, headers=headers, **kwargs)
    assert_replay(first, retry)
    if effect and before == after:
        _fail(f"The first request, answered {first.status_code}, left the effect at {before!r}.")
    if effect and effect() != after:
        _fail(f"The retry changed the effect from {after!r} to {effect()!r}.")
    return first


def assert_replay(first: Any, retry: Any) -> None:
    """See that a response is the first one again: status, type and bytes, and marked as a replay.

    Raises:
        AssertionError: It is not. The message says in what.
    """
    if REPLAYED_HEADER in first.headers:
        _fail("The first response is a replay already: its key was sent before.")
    if REPLAYED_HEADER not in retry.headers:
        _fail(
            f"The retry was not replayed. The first request was answered {first.status_code}, the "
            f"retry {retry.status_code}. Is the view idempotent, is that status kept, and is the "
            "request the same?"
        )
    for what, one, other in (
        ("status code", first.status_code, retry.status_code),
        ("type", first.headers.get("Content-Type"), retry.headers.get("Content-Type")),
        ("body", first.getvalue(), retry.getvalue()),
    ):
        if one != other:
            _fail(f"The replay has another {what}: {other!r}, not {one!r}.")


def assert_problem(response: Any, kind: type[IdempotencyError]) -> None:
    """See that a response is a problem of a kind, such as ``exceptions.KeyReused``.

    Raises:
        AssertionError: It is something else.
    """
    link = response.headers.get("Link", "")
    if response.status_code != kind.status or f"#{kind.slug}>" not in link:
        _fail(
            f"The response is no problem {kind.status} {kind.slug}, but {response.status_code} "
            f"{link or 'without a link to a problem'}."
        )


def expire(key: str) -> None:
    """Let a key expire, whoever's it is: the next request with it is a first one.

    Raises:
        AssertionError: Nobody has sent it.
    """
    now = Now()
    rows = IdempotencyKey.objects.primary().with_key(key)
    if not rows.update(
        created_at=now - timedelta(seconds=2), expires_at=now - timedelta(seconds=1)
    ):
        _fail(f"Nobody has sent the key {key!r}.")


@contextmanager
def first_request_running() -> Iterator[None]:
    """Let each key that is sent in the block be one that another worker is at: 409.

    That worker is real, as far as PostgreSQL knows: it holds the row's lock on a connection of its
    own. At the end of the block it is gone, and has left nothing.

    Raises:
        AssertionError: The key was sent before the block.
    """
    attempt = claims.attempt
    with ExitStack() as others:
        held = set()

        def attempt_too_late(
            claim: claims.Claim, **kwargs: Any
        ) -> AbstractContextManager[claims.Attempt | Answer]:
            if claim.id not in held:
                held.add(claim.id)
                others.enter_context(_another_worker(attempt(claim), claim))
            return attempt(claim, **kwargs)

        with patch.object(claims, "attempt", attempt_too_late):
            yield


@contextmanager
def worker_dies() -> Iterator[None]:
    """Let the worker die when the view has done its work, and before that is committed.

    It ends the block: nothing after the request is run. For the test client only, whose worker is
    the test.

    Raises:
        AssertionError: No view in the block came to its end with an answer to keep.
    """

    def die(*_: object) -> None:
        raise _Death

    with patch.object(claims, "complete", die):
        try:
            yield
        except _Death:
            return
    _fail("The worker lives: no view came to its end with an answer that is kept.")


class _Death(BaseException):
    """Passes whatever catches exceptions, as SIGKILL would."""


@contextmanager
def _another_worker(running: AbstractContextManager[Any], claim: claims.Claim) -> Iterator[None]:
    """Be at a key on a thread of its own, whose connection commits where the test's does not."""
    keys = IdempotencyKey.objects.using(database.alias()).filter(pk=claim.id)
    if keys.exists():
        _fail(f"The key {claim.key!r} was sent before, so its first request is not running.")

    def leave() -> None:
        claims.roll_back()
        running.__exit__(None, None, None)
        keys.all().delete()
        connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as worker:
        worker.submit(running.__enter__).result()
        try:
            yield
        finally:
            worker.submit(leave).result()


def _fail(message: str) -> None:
    raise AssertionError(message)
