"""The documentation tells what is there, no more and no less."""

import ast
import logging
import re

from django.http import HttpRequest
from support import CHECKOUT

import idempotency
from idempotency import conf, exceptions, logs, options, signals, tally
from idempotency.signals import Outcome

DOCS = CHECKOUT / "docs"


def headings(page: str) -> set[str]:
    """Give the names that a page has a heading of code for."""
    return set(re.findall(r"^#+ `([\w.-]+)`", (DOCS / page).read_text(), re.MULTILINE))


def test_every_setting_is_documented_with_its_default() -> None:
    """And none that does not exist."""
    names = {name for name in vars(conf.Settings) if name.isupper()}
    assert headings("settings.md") == names

    source = ast.parse((CHECKOUT / "idempotency/conf.py").read_text())
    (settings,) = [n for n in source.body if isinstance(n, ast.ClassDef) and n.name == "Settings"]
    defaults = {
        node.target.id: ast.unparse(node.value)
        for node in settings.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }
    page = (DOCS / "settings.md").read_text()
    for name, default in defaults.items():
        assert f"# `{name}`\n\nDefault: `{default}`" in page.replace('"', "'"), name


def test_every_argument_of_the_decorator_is_documented() -> None:
    """And none that does not exist."""
    assert headings("decorator.md") == set(options.Options.__dataclass_fields__)


def test_every_problem_is_documented() -> None:
    """With its status, in the contract."""
    page = (DOCS / "http-contract.md").read_text()

    for error in exceptions.IdempotencyError.__subclasses__():
        assert re.search(rf"\b{error.status} `{error.slug}`", page), error.slug


def test_problem_types_are_documented_in_their_words() -> None:
    """All of them, with status, title and what the client reads."""
    page = (DOCS / "problems.md").read_text()
    kinds = exceptions.IdempotencyError.__subclasses__()

    assert headings("problems.md") == {kind.slug for kind in kinds}
    for kind in kinds:
        told = f"## `{kind.slug}`\n\n{kind.status} *{kind.title}*\n\n> {kind().detail}\n"
        assert told in page, kind.slug


def test_the_contract_names_sections_of_the_draft() -> None:
    """Those that the page on conformance takes one by one."""
    contract = (DOCS / "http-contract.md").read_text()
    cases = re.findall(r"^\|.*\| ([\d., \u2013]+) \|$", contract, re.MULTILINE)
    conformance = (DOCS / "conformance.md").read_text()
    taken = {
        section
        for cell in re.findall(r"^\| (\d[\d., ]*)", conformance, re.MULTILINE)
        for section in re.findall(r"[\d.]+", cell)
    }

    named = {section for cell in cases for section in re.findall(r"[\d.]+", cell)}
    assert len(cases) == contract.split("| case |")[1].split("\n\n")[0].count("\n") - 1
    assert named
    assert named <= taken


def test_every_check_is_documented() -> None:
    """With its id, which is that of no other."""
    sources = [path.read_text() for path in CHECKOUT.glob("idempotency/*checks.py")]
    ids = [found for source in sources for found in re.findall(r'id="(idempotency\.\w+)"', source)]

    assert len(ids) == len(set(ids))
    assert headings("checks.md") == set(ids)


def test_every_outcome_is_documented_with_its_level() -> None:
    """And none that does not exist."""
    page = (DOCS / "observability.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\w+)[^|]*\|$", page, re.MULTILINE))

    assert rows.keys() == set(Outcome.values)
    for outcome in Outcome:
        level = logs._LEVELS.get(outcome, logging.WARNING)
        assert rows[outcome] == logging.getLevelName(level)


def test_every_argument_of_the_signal_is_documented() -> None:
    """And none that does not exist."""
    page = (DOCS / "observability.md").read_text()
    rows = re.findall(r"^\| ([`\w, ]+) \| [^|]*\|$", page, re.MULTILINE)
    told = {}

    def listen(**kwargs: object) -> None:
        told.update(kwargs)

    signals.answered.connect(listen)
    with signals.reporting(HttpRequest(), "POST /"):
        pass
    signals.answered.disconnect(listen)
    tally.tally.forget()  # which listens as well, and was asked outside of a test of the database

    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == told.keys() - {
        "signal",
        "sender",
    }


def test_the_changelog_knows_the_version() -> None:
    """What is released is written down."""
    assert f"## [{idempotency.__version__}]" in (CHECKOUT / "CHANGELOG.md").read_text()


def test_the_readme_has_two_commands() -> None:
    """One that shows the demo and one that passes the tests, a line each."""
    readme = (CHECKOUT / "README.md").read_text()

    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "manage.py demo" in commands[0]
    assert "-m pytest" in commands[1]


def test_the_readme_knows_every_page() -> None:
    """The site's own pages apart, which say where to go."""
    readme = (CHECKOUT / "README.md").read_text()
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", readme))

    assert linked == {page.name for page in DOCS.glob("*.md")}
