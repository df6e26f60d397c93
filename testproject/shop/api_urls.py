"""The addresses of the shop's API, where Django REST framework is installed."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import DefaultRouter

from . import api

router = DefaultRouter()
router.register("payments", api.PaymentViewSet, basename="api-payment")

urlpatterns = [
    path("keys/<path:key>/", api.PaymentKeyStatusView.as_view(), name="api-key-status"),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(), name="docs"),
    path("", include(router.urls)),
]
