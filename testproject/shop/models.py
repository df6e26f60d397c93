"""What the shop keeps: accounts with a balance, and the payments taken from them."""

from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.db import models


class Account(models.Model):
    """A customer's prepaid account."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    token = models.CharField(max_length=64, unique=True)
    """Bearer token of its owner. A real shop would keep a hash of it."""

    balance = models.DecimalField(max_digits=12, decimal_places=2, default=Decimal("1000.00"))
    """What is left on it, in the currency's main unit."""

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(name="account_not_overdrawn", condition=models.Q(balance__gte=0))
        ]

    def __str__(self) -> str:
        return f"account of {self.user}"


class Payment(models.Model):
    """Money taken from an account: what must never happen twice."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="payments")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3)
    card = models.CharField(max_length=32)
    refunded = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"payment {self.pk}"
