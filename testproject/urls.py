"""The shop's addresses. The demo, the tests and the tutorial rely on them."""

from django.urls import include, path

from testproject.shop import views

urlpatterns = [
    path("payments/", views.create_payment, name="create-payment"),
    path("payments/<int:pk>/", views.payment_detail, name="payment-detail"),
    path("async/payments/", views.create_payment_async, name="create-payment-async"),
    path("idempotency/", include("idempotency.urls")),
]
