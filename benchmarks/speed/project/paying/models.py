"""What a request leaves behind."""

from django.contrib.auth.models import User
from django.db import models


class Payment(models.Model):
    """The effect: there should be one for each key of a caller."""

    user = models.ForeignKey(User, on_delete=models.PROTECT)
    reference = models.CharField(max_length=100)
    """What the benchmark counts by: the key, which is in the body as well."""
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3)
    card = models.CharField(max_length=50)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "paying"

    def __str__(self) -> str:
        return self.reference
