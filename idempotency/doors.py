"""Finds the doors behind the project's URLs: what a request passes on its way to a view.

A view is followed through its decorators and classes as far as Python shows them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.transaction import Atomic, atomic
from django.urls import URLResolver, get_resolver
from django.views import View

from . import conf
from .options import Options


@dataclass(frozen=True)
class Way:
    """How a request gets from a URL to a function, or to one method of a class."""

    parts: list[Any]
    """What it passes, from the outside in: the wrappers of decorators, each ``dispatch`` of a class
    and its method, or the function."""
    cls: Any = None
    initkwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of ``as_view()``."""

    @property
    def doors(self) -> list[int]:
        """Positions of the doors among the parts. More than one is one too many."""
        return [position for position, part in enumerate(self.parts) if self._is_door(part)]

    @property
    def has_mixin(self) -> bool:
        """Whether the class has ``IdempotencyMixin``."""
        return hasattr(self.cls, "get_idempotency_options")

    @property
    def name(self) -> str:
        """Where to look: the dotted name of the class or the function."""
        named = self.cls or self.parts[-1]
        return f"{named.__module__}.{getattr(named, '__name__', named)}"

    def options(self) -> Options | None:
        """Give what the view asks of its first door; None where that depends on the request.

        Raises:
            TypeError, ValueError: It cannot be right.
        """
        is_framework = hasattr(self.cls, "initialize_request")
        if not self.has_mixin:
            door = self.parts[self.doors[0]]
            if is_framework and door.__name__ == "dispatch":
                raise TypeError("In place of @idempotent it needs IdempotencyMixin.")
            options: Options = door.idempotency_options
            return options
        if not is_framework:
            raise TypeError("In place of IdempotencyMixin it needs @idempotent.")
        if self.cls.get_idempotency_options is not _mixin().get_idempotency_options:
            return None
        from .drf import options_of  # noqa: PLC0415  # it is there, for it made the mixin

        return options_of(self.initkwargs.get("idempotency", self.cls.idempotency))

    def _is_door(self, part: Any) -> bool:
        if self.has_mixin and part is _mixin().dispatch:
            return True
        # What is around a door has its attributes, too; but it is around something that has them.
        inside = getattr(part, "__wrapped__", None)
        is_marked = hasattr(part, "idempotency_options") and _class_of(part) is None
        return is_marked and not hasattr(inside, "idempotency_options")


def project_views() -> Iterator[Any]:
    """Give what the project's URLs name."""
    if conf.of_project("ROOT_URLCONF", None):
        yield from _views_below(get_resolver())


def ways(view: Any) -> Iterator[Way]:
    """Give every way through a view: one through a function, one to each method of a class."""
    parts = _unwrapped(view)
    cls = _class_of(parts[-1])
    if cls is None:
        yield Way(parts)
        return
    cells = _cells(parts[-1])
    for base in cls.__mro__:
        parts += [part for part in _unwrapped(vars(base).get("dispatch")) if part not in parts]
    names = cells["actions"].values() if "actions" in cells else cls.http_method_names
    methods = [method for name in names if (method := getattr(cls, name, None))]
    for method in methods or [None]:
        yield Way([*parts, *_unwrapped(method)], cls, cells["initkwargs"])


def opens_transaction(part: Any, alias: str) -> bool:
    """Tell whether a part is the wrapper of ``atomic``, or of ``method_decorator`` with it."""
    cells = _cells(part)
    decorators = cells.get("decorators", ()) if "method" in cells else ()
    return any(
        (isinstance(it, Atomic) and (it.using or DEFAULT_DB_ALIAS) == alias)
        or (it is atomic and alias == DEFAULT_DB_ALIAS)
        for it in (cells.get("self"), *decorators)
    )


def _views_below(resolver: URLResolver) -> Iterator[Any]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _views_below(pattern)
        else:
            yield pattern.callback


def _unwrapped(part: Any) -> list[Any]:
    """Give a function and all that is around it, from the outside in."""
    parts: list[Any] = []
    while part is not None and part not in parts:
        parts.append(part)
        part = _inside(part)
    return parts


def _inside(part: Any) -> Any:
    if isinstance(part, partial):
        return part.func
    if _class_of(part):  # as_view() gave its function the attributes of the class's dispatch
        return None
    if hasattr(part, "__wrapped__"):
        return part.__wrapped__
    # A decorator without functools.wraps(), or the method that @api_view makes.
    functions = (value for value in _cells(part).values() if isinstance(value, FunctionType))
    marks = ("idempotency_options", "view_class", "cls")
    return next((it for it in functions if any(hasattr(it, mark) for mark in marks)), None)


def _class_of(part: Any) -> Any:
    """Give the class whose ``as_view()`` made a function; None where it was made otherwise."""
    cells = _cells(part)
    cls = cells.get("cls") if "initkwargs" in cells else None
    return cls if isinstance(cls, type) and issubclass(cls, View) else None


def _cells(part: Any) -> dict[str, Any]:
    """Give the variables that a function has from where it was defined."""
    code = getattr(part, "__code__", None)
    cells = {}
    for name, cell in zip(
        code.co_freevars if code else (), getattr(part, "__closure__", None) or (), strict=True
    ):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # it is empty
            continue
    return cells


def _mixin() -> Any:
    from .drf import IdempotencyMixin  # noqa: PLC0415  # only where the framework is installed

    return IdempotencyMixin
