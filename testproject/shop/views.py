"""The shop's views: the same payment as a plain view and as an async one."""

import asyncio

from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from idempotency.decorators import idempotent

from .auth import authenticated
from .models import Account, Payment
from .payments import (
    SLOW_SECONDS,
    InvalidOrder,
    Order,
    PaymentRefused,
    answer,
    describe,
    problem,
    refusal,
    take,
)


@csrf_exempt
@require_POST
@authenticated
@idempotent(required=True, exception_handler=refusal)
def create_payment(request: HttpRequest) -> HttpResponse:
    """Take a payment from the caller's account: ``POST /payments/``."""
    try:
        order = Order.from_request(request)
    except InvalidOrder as error:
        return problem(400, str(error))
    account = Account.objects.get(user=request.user.pk)
    return answer(order, take(account, order))


@csrf_exempt
@require_POST
@authenticated
@idempotent(required=True, exception_handler=refusal)
async def create_payment_async(request: HttpRequest) -> HttpResponse:
    """Take a payment with Django's async ORM: ``POST /async/payments/``."""
    try:
        order = Order.from_request(request)
    except InvalidOrder as error:
        return problem(400, str(error))
    account = await Account.objects.aget(user=request.user.pk)
    payment = await Payment.objects.acreate(
        account=account, amount=order.amount, currency=order.currency, card=order.card
    )
    if order.card == "tok_slow":
        await asyncio.sleep(SLOW_SECONDS)
    enough = Account.objects.filter(pk=account.pk, balance__gte=order.amount)
    if not await enough.aupdate(balance=F("balance") - order.amount):
        raise PaymentRefused("insufficient_funds")
    return answer(order, payment)


@require_GET
@authenticated
def payment_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one of the caller's payments: ``GET /payments/<id>/``."""
    payment = get_object_or_404(Payment, pk=pk, account__user=request.user.pk)
    return JsonResponse(describe(payment))
