"""The shop's addresses. The demo, the tests and the tutorial rely on them."""

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.views import serve
from django.urls import include, path
from django.views.generic import RedirectView

from testproject.shop import checkout, views

urlpatterns = [
    path("admin/", admin.site.urls),
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
if apps.is_installed("drf_spectacular"):
    urlpatterns.append(path("api/", include("testproject.shop.api_urls")))
