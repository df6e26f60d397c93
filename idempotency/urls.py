"""Addresses the app serves: ``path("idempotency/", include("idempotency.urls"))``."""

from django.urls import path

from . import views

app_name = "idempotency"

urlpatterns = [
    path("keys/<path:key>/", views.key_status, name="key-status"),
    path("policy/", views.policy, name="policy"),
]
