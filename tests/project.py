"""What a reader's project has: the names that fragments of its code in the documentation use."""

# ruff: noqa: F401
import hmac
import json
from datetime import timedelta
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any, ClassVar

import adrf.views
import corsheaders.defaults
import pytest
import reversion.middleware
from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import PermissionRequiredMixin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.mail import send_mail
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.test import TestCase
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from rest_framework.decorators import action, api_view
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ModelViewSet

from idempotency.decorators import idempotent
from idempotency.drf import IdempotencyMixin
from idempotency.models import IdempotencyKey
from idempotency.test import assert_replay, assert_safe_to_retry
from idempotency.views import key_status
from testproject.shop.checkout import CheckoutForm
from testproject.shop.models import Account, Payment
from testproject.shop.payments import PaymentRefused, take
from testproject.shop.seed import seed


class bank:  # noqa: N801  # stands for a module
    """A service that takes keys, and remembers them."""

    charges: ClassVar[list[dict[str, Any]]] = []

    @classmethod
    def charge(cls, **arguments: Any) -> Any:
        """Take money."""
        cls.charges.append(arguments)
        return SimpleNamespace(id="ch_1")


def a_customer() -> Any:
    """Make somebody who can pay."""
    return seed()[0].user
