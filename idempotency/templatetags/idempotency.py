"""``{% load idempotency %}`` and, in a form, ``{% idempotency_key %}``."""

from uuid import uuid4

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from idempotency.forms import KEY_FIELD

register = template.Library()


@register.simple_tag
def idempotency_key() -> SafeString:
    """Give a hidden field with a fresh key, for a view with ``@idempotent(form=True)``."""
    # Without autocomplete="off", Firefox fills in the old key when the page is reloaded.
    return format_html(
        '<input type="hidden" name="{}" value="{}" autocomplete="off">', KEY_FIELD, uuid4()
    )
