"""The site: ``python -m sphinx -W -n -b html docs docs/_build/html``."""

from typing import Any

import django
from django.conf import settings
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

import idempotency

# Enough of a project for autodoc to import the models. Nothing connects to a database.
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "idempotency"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}},
)
django.setup()

project = "django-idempotency"
author = "the contributors of django-idempotency"
version = release = idempotency.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True
# Of names outside of the package the addresses are elsewhere, and the build needs no network.
nitpick_ignore_regex = [("py:.*", r"(?!idempotency\.).*")]
default_role = "code"  # what docstrings put between backticks are names, few of which have a page
autodoc_member_order = "bysource"
autodoc_typehints = "none"

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
pygments_style = "xcode"
pygments_dark_style = "monokai"


def read_docstring(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Read ``Args:`` and ``Raises:``, in the manner of Google.

    The extension would do more: take the words before the first colon of an attribute's for a type.
    """
    lines[:] = GoogleDocstring(lines, Config(), what="function").lines()


def leave_out_signature(
    _app: Sphinx, what: str, _name: str, _obj: Any, _options: Any, arguments: str, _returned: str
) -> tuple[str, None]:
    """Leave out how our classes are made: no user makes one."""
    return ("" if what == "class" else arguments), None


def setup(app: Sphinx) -> None:
    """Tell Sphinx of the above."""
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", leave_out_signature)
