"""The rooms and their order, read from the source with `ast`."""

import ast
from pathlib import Path

import pytest
from support import CHECKOUT

PACKAGE = CHECKOUT / "idempotency"

LEVELS = [
    {"apps", "test"},
    {"view_checks", "server_checks"},
    {"checks", "doors"},
    {
        "decorators",
        "drf",
        "browsable",
        "openapi",
        "views",
        "urls",
        "templatetags.idempotency",
        "keys",
        "tasks",
        "purge_idempotency_keys",
        "schedule_idempotency_purge",
        "logs",
        "tally",
        "telemetry",
    },
    {"changelist", "dashboard", "display", "evicting", "export"},
    {"wording"},
    {"operations", "async_views"},
    {"flow"},
    {"options"},
    {"claims", "activity", "tenants"},
    {"database"},
    {"models"},
    {"purges", "records", "digests"},
    {"statements"},
    {"http", "answers", "bodies", "problems", "fingerprints", "preview"},
    {"forms"},
    {"exceptions", "conf"},
    {"signals"},
]
"""From the doors down to the floor. A room may import from the levels below its own."""

WITHIN_DOORS = {
    ("urls", "views"),
    ("drf", "views"),
    ("drf", "browsable"),
    ("decorators", "drf"),
    ("openapi", "drf"),
}
"""The framework's way to the same page, and its pages; one decorator opens both doors,
importing the framework's when that calls it; and what documents that door must know it."""

ONLY_ROOM = {
    "psycopg": {"database"},
    "django.conf": {"conf"},
    "rest_framework": {"drf", "browsable"},
    "drf_spectacular": {"openapi"},
    "celery": {"tasks"},
    "rich": {"purge_idempotency_keys"},
    "opentelemetry": {"telemetry"},
}
"""Imports that belong to one room."""


def rooms() -> list[Path]:
    """Give the package's modules, without package docstrings and migrations."""
    files = {*PACKAGE.rglob("*.py")} - {*PACKAGE.rglob("migrations/*")}
    return [path for path in sorted(files) if path.stem != "__init__"]


def room(path: Path) -> str:
    """Give a module's name within the package, without the folders of commands and the admin."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removeprefix("management.commands.").removeprefix("admin.")


def imports(path: Path) -> set[str]:
    """Give all that a module imports, wherever in it: own rooms by name, others by dotted path."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            found |= {f".{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(f".{node.module}")
        elif isinstance(node, ast.ImportFrom):
            found |= {f".{alias.name}" for alias in node.names}
    return {name.removeprefix(PACKAGE.name) for name in found}


def level(name: str) -> int:
    """Give how far down a room lies."""
    return next(number for number, names in enumerate(LEVELS) if name in names)


def test_every_room_has_its_place() -> None:
    """A new module needs a level, and the package's docstring names it."""
    names = set(map(room, rooms()))
    tour = (PACKAGE / "__init__.py").read_text()

    assert names == set().union(*LEVELS)
    assert all(f"``{name}``" in tour for name in names)


@pytest.mark.parametrize("path", rooms(), ids=room)
def test_imports_point_downward(path: Path) -> None:
    """And never sideways, so that every room can be read before those above it."""
    for name in imports(path):
        other = name.removeprefix(".")
        if name.startswith(".") and (room(path), other) not in WITHIN_DOORS:
            assert level(other) > level(room(path)), f"{room(path)} imports {other}"


@pytest.mark.parametrize("path", rooms(), ids=room)
def test_what_belongs_to_one_room_stays_there(path: Path) -> None:
    """Settings are read in conf; optional packages have a room each."""
    for module, owners in ONLY_ROOM.items():
        used = any(name == module or name.startswith(f"{module}.") for name in imports(path))
        assert not used or room(path) in owners


def test_the_core_needs_django_and_psycopg_only() -> None:
    """Whatever else is imported is the standard library's, or Django's own dependency."""
    import sys

    known = {*sys.stdlib_module_names, "django", "asgiref"}
    for path in rooms():
        outside = {name.partition(".")[0] for name in imports(path) if not name.startswith(".")}
        optional = {module for module, owners in ONLY_ROOM.items() if room(path) in owners}
        assert outside <= known | optional, path


def test_every_room_says_what_it_is_for() -> None:
    """In the first line of its docstring."""
    for path in rooms():
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        assert docstring.splitlines()[0].endswith((".", ":")), path
