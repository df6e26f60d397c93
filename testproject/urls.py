"""The shop's addresses. The demo, the tests and the tutorial rely on them."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from testproject.shop import api, views

router = DefaultRouter()
router.register("payments", api.PaymentViewSet, basename="api-payment")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/keys/<path:key>/", api.PaymentKeyStatusView.as_view(), name="api-key-status"),
    path("api/", include(router.urls)),
    path("payments/", views.create_payment, name="create-payment"),
    path("payments/<int:pk>/", views.payment_detail, name="payment-detail"),
    path("async/payments/", views.create_payment_async, name="create-payment-async"),
    path("idempotency/", include("idempotency.urls")),
]
