"""Start-up checks of the views behind the project's URLs, and of what is around their doors.

Only what is certain is said: of a view that cannot be followed, nothing.
"""

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's name for it
from django.urls import NoReverseMatch, reverse

from . import database, views
from .checks import expires_too_soon
from .doors import Way, opens_transaction, project_views, ways
from .flow import is_atomic_request


def check_views(**_kwargs: Any) -> list[CheckMessage]:
    """Say what is wrong with the views."""
    found: list[CheckMessage] = []
    for view in project_views():
        if view is views.policy:
            found += _policy_problems()
        for way in ways(view):
            if way.doors:
                found += [*_transaction(view, way), *_authorisation(way), *_options(way)]
    # Other methods and other URLs of a view say the same once more.
    return [message for i, message in enumerate(found) if message not in found[:i]]


def _policy_problems() -> Iterator[CheckMessage]:
    """``idempotency.W005``: errors do not link to the policy page, although it is served."""
    try:
        reverse("idempotency:policy")
    except NoReverseMatch:
        yield Warning(
            "idempotency.urls are included where reverse('idempotency:policy') does not find them, "
            "so errors link to the draft in place of your policy page.",
            hint="Include them outside of other namespaces, at a path without arguments: "
            "path('idempotency/', include('idempotency.urls')).",
            id="idempotency.W005",
        )


def _transaction(view: Any, way: Way) -> Iterator[CheckMessage]:
    """``idempotency.E006``: the door is inside a transaction that it did not open."""
    alias = database.alias()
    door, *more = way.doors
    if more:
        mend = "Another @idempotent is around it. Keep one of them."
    elif any(opens_transaction(part, alias) for part in way.parts[:door]):
        mend = "Remove the atomic() around it: the door opens the transaction itself."
    elif is_atomic_request() and alias not in getattr(view, "_non_atomic_requests", ()):
        mend = (
            "ATOMIC_REQUESTS is on, and what the URL names does not say that it opens its "
            f"transaction itself. Put @transaction.non_atomic_requests(using={alias!r}) over it, "
            "or over the dispatch of its class."
        )
    else:
        return
    yield Error(
        f"{way.name} is idempotent, but runs inside a transaction that is open already: every "
        "request with a key would be refused with a RuntimeError, because its claim could not be "
        "committed before the view runs.",
        hint=mend,
        id="idempotency.E006",
    )


def _authorisation(way: Way) -> Iterator[CheckMessage]:
    """``idempotency.W004``: a retry is not authorised again."""
    for part in way.parts[way.doors[-1] + 1 :]:
        if part.__module__ == "django.contrib.auth.mixins":
            culprit, _, _ = part.__qualname__.partition(".")
            hurts = ""
            mend = (
                "Decorate the dispatch of a class without the mixin, and let a class inherit from "
                "the mixin and from that class, in this order."
            )
        elif hasattr(part, "redirect_field_name"):
            culprit = "login_required, permission_required or user_passes_test"
            hurts = ", and a redirect to the login page is stored as an answer"
            mend = "Put the decorator that authorises above @idempotent."
        else:
            continue
        yield Warning(
            f"{way.name} asks {culprit} inside of @idempotent: a retry gets the stored answer even "
            f"where the caller has lost the right to it{hurts}.",
            hint=mend,
            id="idempotency.W004",
        )
        return


def _options(way: Way) -> Iterator[CheckMessage]:
    """``idempotency.E004`` and ``E007``: what the view asks of its door cannot be right."""
    try:
        options = way.options()
    except (TypeError, ValueError) as error:
        yield Error(
            f"{way.name} would answer requests with a key with a TypeError or ValueError: {error}",
            hint="See docs/decorator.md and docs/drf.md for which door takes what.",
            id="idempotency.E007",
        )
        return
    if options and options.ttl:
        yield from expires_too_soon(f"The ttl of {way.name}", options)
