"""The view, and its URL."""

from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.urls import path
from rest_framework.authentication import BaseAuthentication
from rest_framework.generics import CreateAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer, ModelSerializer

from .models import Payment
from .stops import HEADER, pass_by
from .wirings import wiring


class BearerAuthentication(BaseAuthentication):
    """The token is the user's number: it needs no query, as one that is signed needs none."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        """Tell who it is."""
        _, _, number = request.headers.get("Authorization", "").partition("Bearer ")
        return (User(pk=int(number), username=f"user-{number}"), None) if number else None

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """Let what is missing be 401."""
        return "Bearer"


class PaymentSerializer(ModelSerializer[Payment]):
    """What is asked for, and what is answered."""

    class Meta:
        model = Payment
        fields = ("id", "reference", "amount", "currency", "card", "created_at")


class PaymentView(CreateAPIView[Payment]):
    """Takes a payment. What goes around it, its transaction included, is the variant's."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (IsAuthenticated,)
    serializer_class = PaymentSerializer

    def perform_create(self, serializer: BaseSerializer[Payment]) -> None:
        """Insert it."""
        serializer.save(user_id=self.request.user.pk)
        stop = self.request.headers.get(HEADER)
        pass_by("insert", stop)
        if stop:
            transaction.on_commit(partial(pass_by, "commit", stop))


view: Any = wiring.view(PaymentView)

urlpatterns = [path("payments/", view)]
