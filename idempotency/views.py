"""The page that every problem's ``type`` resolves to."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from . import conf
from .exceptions import IdempotencyError


@require_safe
def policy(request: HttpRequest) -> HttpResponse:
    """Tell clients the rules, from the live settings: the draft wants them published (2.3, 2.5)."""
    context = {
        "settings": conf.settings,
        "hours": conf.settings.TTL.total_seconds() / 3600,
        "problems": [kind() for kind in IdempotencyError.__subclasses__()],
    }
    return render(request, "idempotency/policy.html", context)
