"""The shop from outside: customers send requests, and look at what that did to their accounts."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple, Self
from uuid import uuid4

import httpx

from testproject.shop.models import Account
from testproject.shop.seed import ALICE, BOB, Customer

from .server import Server

NOTHING: Final = "no payment"
"""The effect of a request that had none."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """A request for a payment. `dataclasses.replace` changes it and leaves the key."""

    amount: str
    card: str = "tok_visa"
    customer: Customer = ALICE
    key: str = field(default_factory=lambda: str(uuid4()))

    def __str__(self) -> str:
        return f"{self.customer.name.title()} {self.amount}, key {self.key[:4]}"


class Books(NamedTuple):
    """What the shop's books say of a customer."""

    payments: int
    balance: Decimal

    @classmethod
    def of(cls, customer: Customer) -> Self:
        """Look a customer up."""
        account = Account.objects.get(user__username=customer.name)
        return cls(account.payments.count(), account.balance)


class Storefront:
    """Where customers pay: an address, and the books behind it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.acknowledged: dict[tuple[Customer, str], Decimal] = {}
        """What customers know they have paid: one charge for each key that was answered 201."""
        self._books = {customer: Books.of(customer) for customer in (ALICE, BOB)}
        no_reuse = httpx.Limits(max_keepalive_connections=0)  # the killed worker would hold some
        self._http = httpx.Client(base_url=server.url, limits=no_reuse, timeout=20, trust_env=False)

    def pay(self, purchase: Purchase) -> httpx.Response:
        """Send a request. Threads may do so at the same time."""
        order = {"amount": purchase.amount, "currency": "EUR", "card": purchase.card}
        headers = {
            "Authorization": f"Bearer {purchase.customer.token}",
            "Idempotency-Key": f'"{purchase.key}"',
        }
        response = self._http.post("/payments/", json=order, headers=headers)
        if response.status_code == 201:
            self.acknowledged[purchase.customer, purchase.key] = Decimal(purchase.amount)
        return response

    def effect(self, customer: Customer = ALICE) -> str:
        """Say what happened to a customer's account since this was last asked."""
        before, now = self._books[customer], Books.of(customer)
        self._books[customer] = now
        if now == before:
            return NOTHING
        count = now.payments - before.payments
        return f"{count} payment{'' if count == 1 else 's'}, {now.balance - before.balance:+}"

    def due(self, customer: Customer) -> Decimal:
        """Add up what a customer knows to have paid."""
        return sum(
            (amount for (who, _), amount in self.acknowledged.items() if who == customer),
            start=Decimal(0),
        )


def read(response: httpx.Response, original: httpx.Response | None = None) -> str:
    """Say what came back, and whether a replay has the bytes of the original."""
    words = str(response.status_code)
    if response.headers.get("Idempotent-Replayed") == "true":
        is_same = original is not None and response.content == original.content
        words += f" replayed, {'same' if is_same else 'OTHER'} bytes"
    if "Retry-After" in response.headers:
        words += f", Retry-After: {response.headers['Retry-After']}"
    return words
