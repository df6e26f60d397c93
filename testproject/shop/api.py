"""The shop's API with Django REST framework: payments, and an action that gives one back."""

from decimal import Decimal
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.authentication import TokenAuthentication
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from idempotency.drf import IdempotencyMixin, KeyStatusView

from .models import Account, Payment
from .payments import CARDS, Order, PaymentRefused, answer, refund, take


class AccountTokenAuthentication(TokenAuthentication):
    """Knows callers by their account's token: ``Authorization: Token alice-token``."""

    def authenticate_credentials(self, key: str) -> tuple[Any, None]:
        """Find the active user whose account has the token."""
        account = Account.objects.filter(token=key).select_related("user").first()
        if account is None or not account.user.is_active:
            raise AuthenticationFailed("This token is nobody's.")
        return account.user, None


class Refused(APIException):
    """The bank said no."""

    status_code = 402


class PaymentSerializer(serializers.ModelSerializer[Payment]):
    """A payment as the API shows and takes it."""

    card = serializers.ChoiceField(choices=list(CARDS))
    currency = serializers.RegexField("^[A-Za-z]{3}$")
    amount = serializers.DecimalField(max_digits=11, decimal_places=2, min_value=Decimal("0.01"))

    class Meta:
        model = Payment
        fields = ("id", "amount", "currency", "card", "refunded", "created_at")
        read_only_fields = ("refunded",)


class PaymentViewSet(IdempotencyMixin, ListModelMixin, RetrieveModelMixin, GenericViewSet[Payment]):
    """The caller's payments. A key is required to take one, and welcome to give one back."""

    authentication_classes = (AccountTokenAuthentication,)
    permission_classes = (IsAuthenticated,)
    serializer_class = PaymentSerializer
    idempotency = {"required": True}  # noqa: RUF012  # as every option of a view in the framework

    def get_queryset(self) -> QuerySet[Payment]:
        """Only the caller's own."""
        return Payment.objects.filter(account__user=self.request.user.pk).order_by("-pk")

    def create(self, request: Request) -> HttpResponse:
        """Take a payment: ``POST /api/payments/``."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        order = Order(data["amount"], data["currency"].upper(), data["card"])
        try:
            payment = take(Account.objects.get(user=request.user.pk), order)
            plain = answer(order, payment)
        except PaymentRefused as error:
            raise Refused(str(error)) from error
        if plain.status_code != 201 or order.card == "tok_binary":
            return plain
        headers = {name: plain[name] for name in ("Location", "ETag")}
        return Response(self.get_serializer(payment).data, status=201, headers=headers)

    @action(detail=True, methods=["post"], idempotency={"wait": 2})
    def refund(self, _request: Request, **_kwargs: Any) -> Response:
        """Give a payment back: ``POST /api/payments/<id>/refund/``."""
        payment = self.get_object()
        try:
            refund(payment)
        except PaymentRefused as error:
            raise Refused(str(error)) from error
        return Response(self.get_serializer(payment).data)


class PaymentKeyStatusView(KeyStatusView):
    """How the request with one of the caller's keys stands: ``GET /api/keys/<key>/``."""

    authentication_classes = (AccountTokenAuthentication,)
