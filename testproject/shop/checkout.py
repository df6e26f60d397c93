"""The shop's pages: a checkout that people can click twice, and the receipt it leads to."""

from decimal import Decimal
from typing import Final, NamedTuple

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods, require_safe

from idempotency.decorators import idempotent

from .models import Account, Payment
from .payments import Order, PaymentRefused, answer, take


class Product(NamedTuple):
    """Something to buy."""

    name: str
    price: Decimal
    """In euro, for one."""


PRODUCTS: Final = {
    "beans": Product("Coffee beans, 1 kg", Decimal("24.50")),
    "filters": Product("Paper filters, 100 pieces", Decimal("4.90")),
    "kettle": Product("Gooseneck kettle", Decimal("69.00")),
}

CARDS: Final = {
    "tok_visa": "Visa ending in 4242",
    "tok_slow": "Visa ending in 3155, whose bank is slow",
    "tok_declined": "Visa ending in 0002, which is declined",
}

QUANTITY: Final = "Choose a number from 1 to 20."

REFUSALS: Final = {
    "card_declined": "Your bank has declined the card. Nothing was paid. Try another one.",
    "insufficient_funds": "There is not enough on your account. Nothing was paid.",
}


class CheckoutForm(forms.Form):
    """What the customer wants, and what they pay with."""

    template_name = "shop/fields.html"

    product = forms.ChoiceField(
        widget=forms.RadioSelect,
        choices=[(slug, f"{it.name}: {it.price} €") for slug, it in PRODUCTS.items()],
        error_messages={"required": "Choose what you would like to buy."},
    )
    quantity = forms.IntegerField(
        min_value=1,
        max_value=20,
        initial=1,
        error_messages=dict.fromkeys(("required", "invalid", "min_value", "max_value"), QUANTITY),
    )
    card = forms.ChoiceField(
        widget=forms.RadioSelect, choices=list(CARDS.items()), initial="tok_visa"
    )

    def order(self) -> Order:
        """Give the payment for what a valid form asks for."""
        data = self.cleaned_data
        return Order(PRODUCTS[data["product"]].price * data["quantity"], "EUR", data["card"])


def declined(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """Show the form again with what the bank said: the view's ``exception_handler``."""
    if not isinstance(error, PaymentRefused):
        return None
    form = CheckoutForm(request.POST)
    form.add_error(None, REFUSALS[str(error)])
    return _show(request, form, status=402)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
# A visit gets a fresh key. Going back shows the old page: what was paid from it stays paid once.
@cache_control(private=True, no_cache=True)
@idempotent(form=True, required=True, exception_handler=declined)
def checkout(request: HttpRequest) -> HttpResponse:
    """Show the form; take the payment, and lead to its receipt: ``/checkout/``."""
    if request.method != "POST":
        return _show(request, CheckoutForm())
    form = CheckoutForm(request.POST)
    if not form.is_valid():
        return _show(request, form, status=422)
    order = form.order()
    payment = take(get_object_or_404(Account, user=request.user.pk), order)
    answer(order, payment)  # for what it raises: what it answers is the API's
    messages.success(request, "Thank you! Your order is on its way.")
    return redirect("receipt", payment.pk)


@require_safe
@login_required
def receipt(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one of the caller's payments: ``/checkout/<id>/``."""
    payment = get_object_or_404(Payment, pk=pk, account__user=request.user.pk)
    card = CARDS.get(payment.card, payment.card)
    return render(request, "shop/receipt.html", {"payment": payment, "card": card})


def _show(request: HttpRequest, form: CheckoutForm, status: int = 200) -> HttpResponse:
    account = Account.objects.filter(user=request.user.pk).first()
    return render(request, "shop/checkout.html", {"form": form, "account": account}, status=status)
