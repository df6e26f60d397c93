"""What a payment is: the rules both payment views follow, and the pretended card network."""

import json
import os
import time
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse

from .models import Account, Payment

SLOW_SECONDS = float(os.environ.get("SHOP_SLOW_SECONDS", "3"))

CARDS = {
    "tok_visa": "pays",
    "tok_declined": "raises a refusal after having written: 402, and nothing of it stays",
    "tok_returns_402": "returns 402 after having written: its writes stay",
    "tok_slow": f"pays, but takes {SLOW_SECONDS:g} s",
    "tok_error": "raises after having written: 500, and nothing of it stays",
    "tok_returns_500": "returns 500 after having written: nothing of it stays",
    "tok_returns_400": "returns 400 after having written: nothing of it stays",
    "tok_binary": "pays, and answers bytes that are not UTF-8",
}
"""Card tokens in the manner of payment sandboxes: the token decides what happens."""

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

_FIELDS = "Send amount, currency and card as a JSON object, or as a form."


class InvalidOrder(Exception):
    """The request does not describe a payment; the message says why."""


class PaymentRefused(Exception):
    """The bank said no; the message is its code."""


@dataclass(frozen=True)
class Order:
    """A payment that a client asks for."""

    amount: Decimal
    currency: str
    card: str

    @classmethod
    def from_request(cls, request: HttpRequest) -> "Order":
        """Read an order from JSON, or from the fields of a form.

        Raises:
            InvalidOrder: It is something else.
        """
        if request.content_type in _FORMS:
            return cls.from_fields(request.POST)
        return cls.from_json(request.body)

    @classmethod
    def from_json(cls, body: bytes) -> "Order":
        """Read an order like ``{"amount": "12.50", "currency": "EUR", "card": "tok_visa"}``.

        Raises:
            InvalidOrder: It is something else.
        """
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidOrder(_FIELDS) from error
        return cls.from_fields(fields)

    @classmethod
    def from_fields(cls, fields: Any) -> "Order":
        """Read an order from its amount, currency and card by name.

        Raises:
            InvalidOrder: It is something else.
        """
        try:
            amount, currency, card = fields["amount"], fields["currency"], fields["card"]
            value = Decimal(str(amount))
            exact = value.quantize(Decimal("0.01"))
        except (ValueError, KeyError, TypeError, InvalidOperation, RecursionError) as error:
            raise InvalidOrder(_FIELDS) from error
        if exact != value or not 0 < exact < 10**9:
            raise InvalidOrder("The amount must be positive, with two decimals at most.")
        letters = isinstance(currency, str) and currency.isascii() and currency.isalpha()
        if not letters or len(currency) != 3:
            raise InvalidOrder("The currency must be a code of three letters.")
        if card not in [*CARDS]:
            raise InvalidOrder(f"The card must be one of {', '.join(CARDS)}.")
        return cls(exact, currency.upper(), card)


def take(account: Account, order: Order) -> Payment:
    """Write a payment, and take it from the account.

    Raises:
        PaymentRefused: There is not enough on it.
    """
    payment = Payment.objects.create(
        account=account, amount=order.amount, currency=order.currency, card=order.card
    )
    if order.card == "tok_slow":
        time.sleep(SLOW_SECONDS)
    enough = Account.objects.filter(pk=account.pk, balance__gte=order.amount)
    if not enough.update(balance=F("balance") - order.amount):
        raise PaymentRefused("insufficient_funds")
    return payment


def refund(payment: Payment) -> None:
    """Pay a payment back to its account.

    Raises:
        PaymentRefused: That has been done.
    """
    if not Payment.objects.filter(pk=payment.pk, refunded=False).update(refunded=True):
        raise PaymentRefused("already_refunded")
    Account.objects.filter(pk=payment.account_id).update(balance=F("balance") + payment.amount)
    payment.refunded = True


def answer(order: Order, payment: Payment) -> HttpResponse:
    """Answer for a payment that has been written, as its card has it.

    Raises:
        PaymentRefused, RuntimeError: For the cards that raise.
    """
    match order.card:
        case "tok_declined":
            raise PaymentRefused("card_declined")
        case "tok_returns_402":
            return problem(402, "card_declined_but_recorded")
        case "tok_returns_400":
            return problem(400, "the bank did not understand")
        case "tok_returns_500":
            return problem(500, "the bank is on fire")
        case "tok_error":
            raise RuntimeError("The bank's answer made no sense.")
        case "tok_binary":
            content = b"\x89receipt\x00\xff\xfe" + str(payment.pk).encode()
            return HttpResponse(content, content_type="application/octet-stream", status=201)
    response = JsonResponse(describe(payment), status=201)
    response["Location"] = f"/payments/{payment.pk}/"
    response["ETag"] = f'"payment-{payment.pk}"'
    return response


def describe(payment: Payment) -> dict[str, Any]:
    """Return a payment as its JSON object."""
    return {
        "id": payment.pk,
        "amount": str(payment.amount),
        "currency": payment.currency,
        "card": payment.card,
        "refunded": payment.refunded,
        "created_at": payment.created_at.isoformat(),
    }


def problem(status: int, reason: str) -> JsonResponse:
    """Answer with the shop's own error format."""
    return JsonResponse({"error": reason}, status=status)


def refusal(_request: HttpRequest, error: Exception) -> HttpResponse | None:
    """Turn a refusal that a view raised into its answer: the views' ``exception_handler``."""
    return problem(402, str(error)) if isinstance(error, PaymentRefused) else None
