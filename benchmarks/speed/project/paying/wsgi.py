"""What gunicorn serves."""

from collections.abc import Callable, Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.urls import resolve

from .stops import ENVIRON, pass_by

_application: Any = get_wsgi_application()
resolve("/payments/")  # imports all that the first request would


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request, and stop before the answer is sent if that is asked for."""
    answer: Iterable[bytes] = _application(environ, start_response)
    pass_by("answer", environ.get(ENVIRON))
    return answer
