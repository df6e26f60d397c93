"""The page that every problem's ``type`` resolves to."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import TemplateDoesNotExist
from django.views.decorators.http import require_safe

from . import conf
from .exceptions import IdempotencyError


@require_safe
def policy(request: HttpRequest) -> HttpResponse:
    """Tell clients the rules, from the live settings: the draft wants them published (2.3, 2.5)."""
    context: dict[str, Any] = {
        "settings": conf.settings,
        "hours": conf.settings.TTL.total_seconds() / 3600,
        "problems": [kind() for kind in IdempotencyError.__subclasses__()],
    }
    try:
        return render(request, "idempotency/policy.html", context)
    except TemplateDoesNotExist:  # the project has no engine that looks into apps
        problems = [(kind.slug, kind.status, kind.detail) for kind in context["problems"]]
        return HttpResponse(
            "\n\n".join(f"{slug} ({status})\n{detail}" for slug, status, detail in problems),
            content_type="text/plain; charset=utf-8",
        )
