"""Messages for people are translated: each of them, as they are now, and compiled."""

import ast
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_python
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from conftest import MakeDoor
from django.test import Client
from django.utils import translation
from django.utils.translation.template import templatize
from support import CHECKOUT
from test_admin import LIST

from testproject.shop.models import Account
from testproject.shop.seed import CLERK

PACKAGE = CHECKOUT / "idempotency"
CATALOGS = sorted(PACKAGE.glob("locale/*/LC_MESSAGES/django.po"))
KEYWORDS = dict.fromkeys(["_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"])


def messages() -> set[tuple[str, ...]]:
    """Give the messages in the package's code and templates, a plural with its singular."""
    return {found for path in sources() for found in messages_of(path)}


def sources() -> Iterator[Path]:
    """Give what makemessages reads, too."""
    for path in PACKAGE.rglob("*"):
        if path.suffix in {".py", ".html"}:
            yield path


def messages_of(path: Path) -> Iterator[tuple[str, ...]]:
    """Read a file as makemessages does, which needs gettext for it."""
    source = path.read_text("utf-8")
    if path.suffix == ".html":
        # Django's own pseudo-code of a template: calls in a line with noise around.
        calls = re.findall(r"\bn?gettext\(.*?\) ", templatize(source))
        source = "\n".join(ast.unparse(ast.parse(call.strip())) for call in calls)
    for _line, _function, found, _comments in extract_python(
        BytesIO(source.encode()), KEYWORDS, [], {}
    ):
        yield _forms(found) if isinstance(found, str) else tuple(filter(None, found))[:2]


def texts_of(catalog: Catalog) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Give what each message of a catalog says, a plural's forms in their order."""
    return {_forms(it.id): _forms(it.string) for it in catalog if it.id}


def _forms(text: Any) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def read(path: Path) -> Catalog:
    """Read a catalog that people edit."""
    with path.open("rb") as file:
        return read_po(file)


def test_there_is_a_language_beside_english() -> None:
    """German."""
    assert PACKAGE / "locale/de/LC_MESSAGES/django.po" in CATALOGS


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parts[-3])
def test_a_catalog_has_every_message_and_no_other(path: Path) -> None:
    """CONTRIBUTING says how to add what is missing."""
    assert texts_of(read(path)).keys() == messages()
    assert not read(path).obsolete


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parts[-3])
def test_every_message_is_translated(path: Path) -> None:
    """With the same placeholders, in every plural; none is marked as doubtful."""
    for message, texts in texts_of(read(path)).items():
        assert all(texts), message
        assert placeholders(message) == placeholders(texts), message
    assert not [it.id for it in read(path) if it.fuzzy and it.id]


def placeholders(texts: tuple[str, ...]) -> set[frozenset[str]]:
    """Give the placeholders of each form."""
    return {frozenset(re.findall(r"%\(\w+\)[sd]", text)) for text in texts}


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.parts[-3])
def test_a_catalog_is_compiled(path: Path) -> None:
    """What Django reads says the same as what people edit."""
    with path.with_suffix(".mo").open("rb") as file:
        compiled = read_mo(file)

    assert texts_of(compiled) == texts_of(read(path))


def test_pages_for_people_speak_their_language(make_function_door: MakeDoor) -> None:
    """A problem's page does; its document stays English, and says so."""
    door = make_function_door(lambda request: 1 / 0, required=True)
    door.key = ""

    with translation.override("de"):
        page = door(Accept="text/html").content.decode()
        document = door().json()

    assert "Dieses Formular kann nicht gesendet werden" in page
    assert "Was Sie eben gesendet haben, wurde nicht bearbeitet." in page
    assert document["title"] == "Idempotency-Key is missing"


def test_the_admin_speaks_german(alice: Account) -> None:
    """Where the project's language is German."""
    client = Client(headers={"Accept-Language": "de"})
    client.login(username=CLERK.name, password=CLERK.password)

    with translation.override("de"):
        page = client.get(LIST).content.decode()

    assert "Idempotenzschlüssel" in page
    assert "Übersicht" in page
