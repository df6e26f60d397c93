"""The shop's addresses. The demo, the tests and the tutorial rely on them."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.views import serve
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import DefaultRouter

from testproject.shop import api, checkout, views

router = DefaultRouter()
router.register("payments", api.PaymentViewSet, basename="api-payment")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/keys/<path:key>/", api.PaymentKeyStatusView.as_view(), name="api-key-status"),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(), name="docs"),
    path("api/", include(router.urls)),
    path("payments/", views.create_payment, name="create-payment"),
    path("payments/<int:pk>/", views.payment_detail, name="payment-detail"),
    path("async/payments/", views.create_payment_async, name="create-payment-async"),
    path("", RedirectView.as_view(pattern_name="checkout")),
    path("checkout/", checkout.checkout, name="checkout"),
    path("checkout/<int:pk>/", checkout.receipt, name="receipt"),
    path("login/", LoginView.as_view(template_name="shop/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("idempotency/", include("idempotency.urls")),
    # A real shop has its static files collected, and served by a web server.
    path("static/<path:path>", serve, {"insecure": True}),
]
