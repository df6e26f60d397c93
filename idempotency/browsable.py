"""The browsable API: a field for the key in the pages of Django REST framework.

A plain form cannot send a header, so a script of ours sends the forms that have the field, in the
way in which the framework's own script sends its others.
"""

from typing import Any
from uuid import uuid4

from django import forms
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import override_method

from .http import KEY_HEADER

HELP = _(
    "The same request with the same key is done once, and answered alike each time. "
    "Leave it empty to send none."
)


class KeyFieldRenderer(BrowsableAPIRenderer):
    """The browsable API with a field for the key in the forms of methods that honour one.

    `idempotency.drf.IdempotencyMixin` puts it in the place of ``BrowsableAPIRenderer``. Renderers
    of your own can be subclasses of it; their template has to load ``idempotency/browsable.js``.
    """

    template = "idempotency/api.html"

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """Put the field in front of a form's own ones."""
        form = super().get_rendered_html_form(data, view, method, request)
        if not isinstance(form, str) or not (methods := _honouring(view, request, method)):
            return form
        context = {"field": _attributes(methods, "form"), "label": KEY_HEADER, "help": HELP}
        return format_html("{}{}", render_to_string("idempotency/key_field.html", context), form)

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """Put the field in front of media type and content."""
        form = super().get_raw_data_form(data, view, method, request)
        # PUT and PATCH share a form, with a button for each.
        together = ("PUT", "PATCH") if method in {"PUT", "PATCH"} else (method,)
        if form is None or not (methods := _honouring(view, request, *together)):
            return form
        field = forms.CharField(
            label=KEY_HEADER,
            help_text=HELP,
            required=False,
            widget=forms.TextInput(attrs=_attributes(methods, "raw")),
        )
        form.fields = {"_idempotency_key": field, **form.fields}
        return form


def _honouring(view: Any, request: Any, *methods: str) -> list[str]:
    """Give those of a view's methods that honour a key: none, where it knows nothing of keys."""
    honouring = []
    for method in methods:
        with override_method(view, request, method):
            options = getattr(view, "get_idempotency_options", None)
            if options and method in view.allowed_methods and options().honour(method):
                honouring.append(method)
    return honouring


def _attributes(methods: list[str], kind: str) -> dict[str, str]:
    return {
        "id": f"idempotency-key-{kind}-{methods[0].lower()}",
        "value": str(uuid4()),
        "data-idempotent-methods": " ".join(methods),
        "pattern": "[ -~]*",
        "title": str(_("Printable ASCII characters")),
        "autocomplete": "off",
        "spellcheck": "false",
    }
