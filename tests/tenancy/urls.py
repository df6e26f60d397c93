"""A view whose work lies in the tenant's schema, and the app's own pages."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

from idempotency.decorators import idempotent


def authenticated(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Return a middleware for which every caller is the tenant's first user."""

    def middleware(request: HttpRequest) -> Any:
        request.user = User.objects.get(pk=1)
        return get_response(request)

    return middleware


@idempotent(required=True)
def order(request: HttpRequest) -> HttpResponse:
    """Write down an order: as a group, which has a table in each tenant's schema."""
    count = Group.objects.count()
    Group.objects.create(name=f"order {count}")
    user: Any = request.user
    return JsonResponse({"user": user.username, "order": count}, status=201)


urlpatterns = [path("orders/", order), path("idempotency/", include("idempotency.urls"))]
