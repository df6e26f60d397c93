"""How each variant is put around the view, with the best configuration its authors document.

What a package asks for goes where it asks for it: apps, middleware, settings, the view's class or
its handler, the WSGI application. Nothing of it is imported before the variant is known.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Wrap = Callable[[Any], Any]


def _transactional(view: Any) -> Any:
    """Let the handler be one transaction, as it would be without the package."""
    from django.db import transaction  # noqa: PLC0415

    class TransactionalView(view):  # type: ignore[misc]
        post = transaction.atomic(view.post)

    return TransactionalView.as_view()


@dataclass(frozen=True)
class Wiring:
    """What a variant adds to the project."""

    apps: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    view: Wrap = _transactional
    """Makes the view of its class."""
    wsgi: Wrap = lambda application: application


def _bare() -> Wiring:
    return Wiring()


def _ours() -> Wiring:
    def view(base: Any) -> Any:
        from idempotency.drf import IdempotencyMixin  # noqa: PLC0415

        class OurView(IdempotencyMixin, base):  # type: ignore[misc]
            pass

        return OurView.as_view()

    return Wiring(apps=("idempotency",), view=view)


_WIRINGS: dict[str, Callable[[], Wiring]] = {
    "bare": _bare,
    "ours": _ours,
}

wiring = _WIRINGS[os.environ["SPEED_VARIANT"]]()
