"""Problems: how an error is told to a program (RFC 9457), and how to a person. No database."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.cache import patch_vary_headers
from django.utils.encoding import escape_uri_path
from django.utils.http import url_has_allowed_host_and_scheme

from . import forms
from .exceptions import IdempotencyError

CONTENT_TYPE = "application/problem+json"
DRAFT = "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07"


def respond(request: HttpRequest, error: IdempotencyError) -> HttpResponse:
    """Answer an error: a problem document (RFC 9457), or a page with the same facts for people."""
    uri = type_uri(request, error.slug)
    members = document(error, uri, request.path)
    response = _page(request, error, members) or JsonResponse(
        members,
        content_type=CONTENT_TYPE,
        headers={"Content-Language": "en"},  # or LocaleMiddleware names the project's language
    )
    response.status_code = error.status
    response["Link"] = f'<{uri}>; rel="describedby"'
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept"])
    if error.retry_after is not None:
        response["Retry-After"] = str(error.retry_after)
    return response


def document(error: IdempotencyError, uri: str, path: str) -> dict[str, Any]:
    """Give the members of a problem document (RFC 9457, section 3.1)."""
    return {
        "type": uri,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": escape_uri_path(path),
    }


def type_uri(request: HttpRequest, slug: str) -> str:
    """Give a problem type's absolute URI: a paragraph of the policy page, where that is served."""
    return request.build_absolute_uri(f"{policy_address()}#{slug}")


def policy_address() -> str:
    """Give the path of the policy page, or where that is not served, the draft's address."""
    try:
        return reverse("idempotency:policy")
    except NoReverseMatch:
        return DRAFT


def _page(
    request: HttpRequest, error: IdempotencyError, members: dict[str, Any]
) -> HttpResponse | None:
    offered = [CONTENT_TYPE, "application/json", "text/html"]
    try:
        if request.get_preferred_type(offered) != "text/html":
            return None
        context = {"error": error, "problem": members, "form": _address_of_form(request)}
        return HttpResponse(render_to_string("idempotency/problem.html", context))
    except (TemplateDoesNotExist, ValueError):
        return None  # no engine looks into apps; or the Accept header makes no sense


def _address_of_form(request: HttpRequest) -> str | None:
    """Give the page that a form was posted from, if it is one of this site."""
    page = request.headers.get("Referer")
    ours = {request.get_host()}
    is_ours = url_has_allowed_host_and_scheme(page, ours, require_https=request.is_secure())
    return page if is_ours and forms.is_form(request) else None
