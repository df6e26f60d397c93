"""The form: a key in a hidden field of an HTML form, which cannot send a header."""

from django.core.exceptions import BadRequest
from django.http import HttpRequest, QueryDict

KEY_FIELD = "idempotency_key"
"""Name of the hidden field, which ``{% idempotency_key %}`` puts into a form."""

BESIDE_THE_POINT = frozenset({KEY_FIELD, "csrfmiddlewaretoken"})
"""Fields that say nothing of what the sender wants: another rendering of a form fills them in anew,
the CSRF token because Django masks it each time."""

MEDIA_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def is_form(request: HttpRequest) -> bool:
    """Tell whether a request is the post of an HTML form."""
    return request.method == "POST" and request.content_type in MEDIA_TYPES


def fields(request: HttpRequest) -> QueryDict:
    """Give ``request.POST``. What Django says of a body it refuses passes, and is 400.

    Raises:
        BadRequest: It is in a charset that no text has.
    """
    try:
        return request.POST
    except (LookupError, ValueError) as error:
        raise BadRequest("The body cannot be decoded.") from error


def keys(request: HttpRequest) -> list[str]:
    """Give what the post of a form has in the field for the key; nothing for other requests."""
    return fields(request).getlist(KEY_FIELD) if is_form(request) else []
