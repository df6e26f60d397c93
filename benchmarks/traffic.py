"""Live requests without their HTTP: claim, lock, a business row, the answer, commit.

They go through `idempotency.claims`, so they are what the app does.
"""

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection, transaction

from idempotency import claims
from idempotency.answers import Answer
from testproject.shop.models import Account, Payment

from . import designs

ACCOUNTS = 200
"""The shop's accounts. A payment locks its account, so a few would stand in each other's way."""

TTL = timedelta(hours=24)

_HEADERS = (
    ("Content-Type", "application/json"),
    ("Content-Language", "en"),
    ("Location", "/payments/4711/"),
    ("ETag", '"9f86d081884c7d65"'),
    ("Cache-Control", "no-store"),
    ("Vary", "Accept, Accept-Language"),
    ("Allow", "GET, POST, HEAD, OPTIONS"),
    ("Link", '</payments/4711/receipt/>; rel="receipt"'),
    ("API-Version", "2026-06-01"),
    ("Payment-State", "captured"),
)
_BODY_BYTES = (100, 600)
"""Least and most. If all were alike, rows might happen to fill their pages without a rest."""


def open_accounts() -> list[int]:
    """Create the shop's accounts, with the tokens ``account-0`` and so on; give their ids."""
    users = User.objects.bulk_create(User(username=f"account-{n}") for n in range(ACCOUNTS))
    accounts = Account.objects.bulk_create(
        Account(user=user, token=user.username, balance=Decimal(10**9)) for user in users
    )
    return [account.pk for account in accounts]


@contextmanager
def first_account_held() -> Iterator[None]:
    """Hold the first account, and with it a payment of it in its view, while the block lasts."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM shop_account WHERE token = 'account-0' FOR UPDATE")
        yield


class Caller:
    """Sends requests of many callers, each with a new key."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # repeatable, not secret
        self.accounts = list(Account.objects.values_list("pk", flat=True))

    def request(self) -> None:
        """Make one first request, from claim to commit."""
        account = self.random.choice(self.accounts)
        claim = claims.Claim(
            scope=f"user:{account}",
            key=str(UUID(int=self.random.getrandbits(128), version=4)),
            fingerprints=(b"\x01" + self.random.randbytes(32),),
            operation="POST /payments/",
            ttl=TTL,
        )
        with claims.attempt(claim) as attempt:
            assert isinstance(attempt, claims.Attempt)  # noqa: S101  # the key is new
            Payment.objects.create(
                account_id=account, amount=Decimal("12.50"), currency="EUR", card="tok_visa"
            )
            body = self.random.randbytes(self.random.randint(*_BODY_BYTES))
            claims.complete(attempt, Answer(201, _HEADERS, body))


@dataclass(frozen=True, slots=True)
class Sample:
    """One request."""

    due: float
    """When it was to begin, on the machine's monotonic clock."""
    seconds: float
    """From then to its end, so that a request which could not begin in time counts as slow."""


class Crowd:
    """Processes that send requests, each at its own steady rate whatever the answers take."""

    def __init__(self, processes: int, rate: float, schema: str, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, rate / processes, number / rate, schema, seed + number)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()  # it is ready

    def start(self, begin: float, end: float) -> None:
        """Let requests be due from one moment to another."""
        for pipe in self._pipes:
            pipe.send((begin, end))

    def samples(self) -> list[Sample]:
        """Wait for the end, and give what was measured."""
        return [sample for pipe in self._pipes for sample in pipe.recv()]

    def stop(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()


@contextmanager
def crowd(processes: int, rate: float, *, schema: str, seed: int) -> Iterator[Crowd]:
    """Give processes that are ready to send ``rate`` requests a second together."""
    people = Crowd(processes, rate, schema, seed)
    try:
        yield people
    finally:
        people.stop()


def _serve(pipe: Connection, rate: float, phase: float, schema: str, seed: int) -> None:
    designs.use(schema)
    caller = Caller(seed)
    caller.request()  # whatever is slow only once
    pipe.send(None)
    while True:
        try:
            begin, end = pipe.recv()
        except EOFError:
            return
        pipe.send(list(_paced(caller, begin + phase, end, 1 / rate)))


def _paced(caller: Caller, due: float, end: float, interval: float) -> Iterator[Sample]:
    while due < end:
        time.sleep(max(0, due - time.monotonic()))
        caller.request()
        yield Sample(due, time.monotonic() - due)
        due += interval
