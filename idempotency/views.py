"""What clients may look at: the state of their own keys, and the policy that errors link to."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template import TemplateDoesNotExist
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_safe

from . import claims, conf, problems, tenants
from .exceptions import IdempotencyError, UnknownKey


@require_safe
def key_status(request: HttpRequest, key: str, scope: conf.Resolver | None = None) -> HttpResponse:
    """Tell the caller how the request with one of their keys stands.

    Unknown, expired and other people's keys are 404 alike. ``running`` is false where an attempt
    ended without an answer: the same request may be sent again, and will be processed.

    Args:
        scope: Resolver of who is calling, for keys of views that have one of their own.
    """
    try:
        caller = tenants.scope(request, scope)
        found = claims.find(caller.name, key, users=caller.users)
        if found is None:
            raise UnknownKey
    except IdempotencyError as error:
        return problems.respond(request, error)
    response = JsonResponse(
        {
            "key": found.key,
            "status": found.status,
            "running": found.is_running,
            "status_code": found.status_code,
            "attempts": found.attempts,
            "first_seen": found.created_at,
            "expires": found.expires_at,
        }
    )
    add_never_cache_headers(response)
    return response


@require_safe
def policy(request: HttpRequest) -> HttpResponse:
    """Tell clients the rules, from the live settings: the draft wants them published (2.3, 2.5)."""
    context: dict[str, Any] = {
        "settings": conf.settings,
        "lifetime": conf.in_words(conf.settings.TTL),
        "problems": [kind() for kind in IdempotencyError.__subclasses__()],
    }
    try:
        return render(request, "idempotency/policy.html", context)
    except TemplateDoesNotExist:  # the project has no engine that looks into apps
        rules = (
            f"Send Idempotency-Key with a {' or '.join(conf.settings.METHODS)} request: 1 to 255 "
            "printable ASCII characters in double quotes, the same with every retry. A key expires "
            f"{context['lifetime']} after it was first sent, unless its operation's documentation "
            "says otherwise. Where little of that time is left when the response comes, it is kept "
            "for longer: an hour, or the whole time if that is less."
        )
        paragraphs = (f"{it.slug} ({it.status})\n{it.detail}" for it in context["problems"])
        text = "\n\n".join([rules, *paragraphs])
        return HttpResponse(text, content_type="text/plain; charset=utf-8")
