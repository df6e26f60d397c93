"""The shop's API with Django REST framework: payments, and an action that gives one back."""

from decimal import Decimal
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
    inline_serializer,
)
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


@extend_schema_field(
    {
        "type": "string",
        "format": "decimal",
        "pattern": r"^(?:[1-9][0-9]{0,8}(?:\.[0-9]{1,2})?|0\.(?:0[1-9]|[1-9][0-9]?))$",
    }
)
class Amount(serializers.DecimalField):
    """Money, which is more than nothing."""


class PaymentSerializer(serializers.ModelSerializer[Payment]):
    """A payment as the API shows and takes it."""

    card = serializers.ChoiceField(choices=list(CARDS.items()))
    currency = serializers.RegexField("^[A-Za-z]{3}$")
    amount = Amount(max_digits=11, decimal_places=2, min_value=Decimal("0.01"))

    class Meta:
        model = Payment
        fields = ("id", "amount", "currency", "card", "refunded", "created_at")
        read_only_fields = ("refunded",)


_DETAIL = inline_serializer("Detail", {"detail": serializers.CharField()})
_ERROR = inline_serializer("Error", {"error": serializers.CharField()})
_REFUSED = PolymorphicProxySerializer("Refusal", [_DETAIL, _ERROR], resource_type_field_name=None)
_UNKNOWN_CALLER = {401: OpenApiResponse(_DETAIL, "The token is missing, or nobody's.")}
_UNKNOWN_PAYMENT = {404: OpenApiResponse(_DETAIL, "The caller has no such payment.")}
_WRONG_TYPE = {415: OpenApiResponse(_DETAIL, "The body is of a type that is not taken.")}
_PAYMENT = {"amount": "12.50", "currency": "EUR", "card": "tok_visa"}
_ADDRESS = [
    OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201]),
    OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[201]),
]


@extend_schema_view(
    list=extend_schema(responses={200: PaymentSerializer(many=True)} | _UNKNOWN_CALLER),
    retrieve=extend_schema(responses={200: PaymentSerializer} | _UNKNOWN_CALLER | _UNKNOWN_PAYMENT),
)
class PaymentViewSet(IdempotencyMixin, ListModelMixin, RetrieveModelMixin, GenericViewSet[Payment]):
    """The caller's payments. A key is required to take one, and welcome to give one back."""

    authentication_classes = (AccountTokenAuthentication,)
    permission_classes = (IsAuthenticated,)
    serializer_class = PaymentSerializer
    lookup_value_regex = "[^/]+"  # the default takes no dots, and Django would answer with a page
    idempotency = {"required": True}  # noqa: RUF012  # as every option of a view in the framework

    def get_queryset(self) -> QuerySet[Payment]:
        """Only the caller's own."""
        return Payment.objects.filter(account__user=self.request.user.pk).order_by("-pk")

    @extend_schema(
        parameters=_ADDRESS,
        examples=[OpenApiExample("Payment", _PAYMENT, request_only=True)],
        responses=_UNKNOWN_CALLER
        | _WRONG_TYPE
        | {
            (201, "application/json"): OpenApiResponse(PaymentSerializer, "The payment was taken."),
            (201, "application/octet-stream"): OpenApiTypes.BINARY,
            400: OpenApiResponse(OpenApiTypes.OBJECT, "What is wrong, by field."),
            402: OpenApiResponse(_REFUSED, "The bank refused."),
            (500, "application/json"): OpenApiResponse(_ERROR, "The cards that end so."),
            (500, "text/html"): OpenApiTypes.STR,
        },
    )
    def create(self, request: Request) -> HttpResponse:
        """Take a payment from the caller's account. The card decides what happens."""
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

    @extend_schema(
        request=None,
        responses=_UNKNOWN_CALLER
        | _UNKNOWN_PAYMENT
        | {200: PaymentSerializer, 402: OpenApiResponse(_DETAIL, "It was given back already.")},
    )
    @action(detail=True, methods=["post"], idempotency={"wait": 2})
    def refund(self, _request: Request, **_kwargs: Any) -> Response:
        """Give a payment back to its account."""
        payment = self.get_object()
        try:
            refund(payment)
        except PaymentRefused as error:
            raise Refused(str(error)) from error
        return Response(self.get_serializer(payment).data)


@extend_schema(responses=_UNKNOWN_CALLER)
class PaymentKeyStatusView(KeyStatusView):
    """How the request with one of the caller's keys stands."""

    authentication_classes = (AccountTokenAuthentication,)
