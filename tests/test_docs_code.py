"""Every block of code in the documentation is run, or at least read by who would run it."""

import configparser
import hmac
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from types import ModuleType
from typing import Any

import project
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import get_commands, load_command_class
from django.db import connection, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.http import JsonResponse
from django.template import engines
from django.test import AsyncClient, Client
from django.urls import clear_url_caches, path
from reading import Block, blocks, looks_like, steps
from support import CHECKOUT

from idempotency import conf
from idempotency.decorators import idempotent
from idempotency.exceptions import KeyReused
from idempotency.tasks import purge_expired_keys
from idempotency.test import assert_problem, assert_replay, worker_dies
from testproject.shop.checkout import CheckoutForm
from testproject.shop.demonstration.scenes import SCENES
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE

LANGUAGES = {"python", "sh", "console", "http", "json", "html", "ini", "sql", "promql", "text"}

PLAYED = {"tutorial.md", "start.md"}
"""Pages that slow tests follow from top to bottom: see test_tutorial.py and test_packaging.py."""


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    """A block without a language would pass by all of the tests."""
    assert {block.language for block in blocks()} <= LANGUAGES
    assert {block.page.name for block in blocks("console")} == PLAYED


# Python


def run(block: Block) -> dict[str, Any]:
    """Run a page up to a block, where the project has its names already; give all names."""
    names = {"__name__": "shop", **vars(project)}
    for one in blocks("python", page=block.page.name):
        if one.line <= block.line:
            exec(compile(one.code, str(one), "exec"), names)  # noqa: S102
    return names


def names_of(page: str, name: str) -> dict[str, Any]:
    """Run the first block of a page that defines a name."""
    define = re.compile(rf"^(?:async def|def|class) {name}\b|^{name} =", re.MULTILINE)
    return run(next(block for block in blocks("python", page=page) if define.search(block.code)))


LAST = {block.page.name: block for block in blocks("python") if block.page.name not in PLAYED}


@pytest.mark.parametrize("page", LAST)
def test_python_runs(alice: Account, page: str) -> None:
    """All of a page, in a project that has imported what fragments do not say."""
    assert run(LAST[page])


@pytest.fixture
def serve_at(settings: Any) -> Any:
    """Give a function that serves a view at an address, and nothing else."""

    def serve(address: str, view: Any) -> None:
        urlconf = ModuleType("urlconf_of_one_test")
        urlconf.urlpatterns = [path(address, view)]  # type: ignore[attr-defined]
        settings.ROOT_URLCONF = urlconf
        clear_url_caches()

    yield serve
    clear_url_caches()


@pytest.fixture
def client_of_alice(alice: Account) -> Client:
    """Give a client with which alice is logged in."""
    client = Client()
    client.force_login(alice.user)
    return client


KEY = {"Idempotency-Key": "mine"}


@pytest.mark.parametrize(
    "name", ["test_a_payment_is_taken_once", "test_what_can_become_of_a_payment"]
)
def test_the_tests_of_the_documentation_pass(alice: Account, serve_at: Any, name: str) -> None:
    """On the view that its first page begins with."""
    serve_at("payments/", names_of("index.md", "create_payment")["create_payment"])

    names_of("testing.md", name)[name](Client(), alice.user)

    assert Payment.objects.exists()


def test_the_class_of_tests_passes(alice: Account, serve_at: Any) -> None:
    """As Django has them."""
    serve_at("payments/", names_of("index.md", "create_payment")["create_payment"])
    case = names_of("testing.md", "PaymentTest")["PaymentTest"]("test_a_payment_is_taken_once")
    case.client = Client()

    case.test_a_payment_is_taken_once()

    assert Payment.objects.count() == 1


async def pay_async(test: Any, customer: Any) -> None:
    """Run an async test of the documentation."""
    await test(AsyncClient(), customer)


def test_the_async_test_passes(alice: Account, serve_at: Any) -> None:
    """On the async view."""
    serve_at("payments/", names_of("async.md", "create_payment")["create_payment"])
    name = "test_a_payment_is_taken_once_async"

    async_to_sync(pay_async)(names_of("testing.md", name)[name], alice.user)

    assert Payment.objects.count() == 1


def test_a_webhook_is_taken_once(alice: Account, serve_at: Any) -> None:
    """However often it is delivered, with whatever else in it; and from the bank only."""
    serve_at("hook/", names_of("webhooks.md", "receive")["receive"])
    payment = Payment.objects.create(account=alice, amount=1)

    def deliver(secret: bytes, **event: Any) -> Any:
        body = json.dumps(
            {"id": "evt_1", "type": "payment.refunded", "payment": payment.pk, **event}
        )
        signature = hmac.new(secret, body.encode(), "sha256").hexdigest()
        headers = {"Bank-Signature": signature}
        return Client().post("/hook/", body, "application/json", headers=headers)

    assert deliver(b"a guess").status_code == 403
    assert_replay(
        deliver(b"the secret it gave you", sent_at=1), deliver(b"the secret it gave you", sent_at=2)
    )
    payment.refresh_from_db()
    assert payment.refunded


def test_a_service_is_sent_the_same_key(client_of_alice: Client, serve_at: Any) -> None:
    """By both attempts, where the worker of the first one died."""
    serve_at("pay/", names_of("effects.md", "create_payment")["create_payment"])
    project.bank.charges.clear()

    with worker_dies():
        client_of_alice.post("/pay/", {"amount": "5"}, headers=KEY)
    client_of_alice.post("/pay/", {"amount": "5"}, headers=KEY)

    first, second = project.bank.charges
    assert first == second
    assert Payment.objects.count() == 1


def test_a_mail_after_the_commit_is_sent_once(client_of_alice: Client, serve_at: Any) -> None:
    """And not by an attempt whose worker died."""
    (block,) = [it for it in blocks("python", page="effects.md") if "on_commit" in it.code]
    User.objects.update(email="alice@example.com")
    serve_at("pay/", run(block)["create_payment"])

    with worker_dies():
        client_of_alice.post("/pay/", {"amount": "5"}, headers=KEY)
    assert mail.outbox == []

    first, retry = (client_of_alice.post("/pay/", {"amount": "5"}, headers=KEY) for _ in range(2))
    assert_replay(first, retry)
    assert len(mail.outbox) == 1


def test_what_a_fingerprint_leaves_out_may_change(client_of_alice: Client, serve_at: Any) -> None:
    """And nothing else."""
    names = names_of("decorator.md", "without_sent_at")
    view = idempotent(fingerprint=names["without_sent_at"])
    serve_at("pay/", view(lambda request: JsonResponse(request.POST)))
    post = client_of_alice.post

    first = post("/pay/", {"amount": "5", "sent_at": "1"}, headers=KEY)
    assert_replay(first, post("/pay/", {"amount": "5", "sent_at": "2"}, headers=KEY))
    assert_problem(post("/pay/", {"amount": "6", "sent_at": "1"}, headers=KEY), KeyReused)


def test_settings_are_right(settings: Any) -> None:
    """Those of the app."""
    settings.IDEMPOTENCY = names_of("settings.md", "IDEMPOTENCY")["IDEMPOTENCY"]

    assert not list(conf.problems())
    assert conf.settings.TTL.days == 7


@pytest.mark.usefixtures("committed")
def test_options_of_a_connection_arrive() -> None:
    """In the session, where the checks look for them; the page says that PgBouncer has none."""
    options = names_of("production.md", "DATABASES")["DATABASES"]["default"]["OPTIONS"]
    straight = {name.upper(): value for name, value in settings.POSTGRES.items()}
    ours: Any = connection.copy()
    ours.settings_dict = {**connection.settings_dict, **straight, "OPTIONS": options}
    try:
        with ours.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            assert cursor.fetchone() == ("1min",)
    finally:
        ours.close()
    assert isinstance(ours, DatabaseWrapper)


def test_a_schedule_names_the_task() -> None:
    """Which a worker knows by this name."""
    schedule = names_of("purge.md", "CELERY_BEAT_SCHEDULE")["CELERY_BEAT_SCHEDULE"]

    assert {entry["task"] for entry in schedule.values()} == {purge_expired_keys.name}


def test_a_configuration_of_logging_configures() -> None:
    """In a process of its own, since it changes all of logging."""
    (block,) = [it for it in blocks("python", page="observability.md") if "LOGGING" in it.code]
    code = f"import logging.config\n{block.code}\nlogging.config.dictConfig(LOGGING)"

    subprocess.run([sys.executable, "-c", code], check=True)


# Commands


@pytest.mark.slow
def test_commands_exist() -> None:
    """With their options; pages that are played from top to bottom have theirs run."""
    for block in blocks("sh"):
        for line in block.code.replace("\\\n", " ").splitlines():
            for command in re.split(r" && | \| ", line):
                check(shlex.split(command, comments=True))
    for block in blocks("console"):
        for command, _ in steps(block):
            assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0


KNOWN = {"cd", "django-admin", "mypy", "pybabel", "ruff"}


def check(words: list[str]) -> None:
    """See that a command is one that can be run."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if not words:
        return
    program, *arguments = words
    match program.rpartition("/")[2]:
        case "python" | "python3":
            check_python(arguments)
        case "pip":
            check_pip(arguments)
        case other:
            assert other in KNOWN, words


def check_python(arguments: list[str]) -> None:
    """See that a module or a management command takes what it is given."""
    match arguments:
        case ["-m", "venv" | "pytest", *_]:
            pass
        case ["-m", module, *options]:
            known = help_of(module)
            assert all(it in known for it in options if it.startswith("--")), arguments
        case ["manage.py", name, *options]:
            command = load_command_class(get_commands()[name], name)
            command.create_parser("manage.py", name).parse_args(options)
        case _:
            raise AssertionError(arguments)


@cache
def help_of(module: str) -> str:
    """Give what a module says of its options."""
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout


def check_pip(arguments: list[str]) -> None:
    """See that the extras exist."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    for package in arguments[1:]:
        if not package.startswith("-"):
            found = re.fullmatch(r"(?:\.|django-idempotency-pg)(?:\[([\w,]+)\])?", package)
            assert found, package
            extras = set(filter(None, (found[1] or "").split(",")))
            assert extras <= set(setup["options.extras_require"]), package


# What else there is


EXCHANGES = [
    (one, other)
    for one, other in zip(blocks("http")[::2], blocks("http")[1::2], strict=True)
    if one.page == other.page
]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: str(exchange[0]))
def test_an_exchange_happens_as_it_is_told(alice: Account, exchange: tuple[Block, Block]) -> None:
    """The shop gives the answer that stands below the request."""
    request, response = exchange
    first_line, headers, body = message(request)
    method, address, _ = first_line.split()
    content_type = headers.pop("Content-Type", "")

    got = Client().generic(method, address, body, content_type, headers=headers)

    first_line, headers, body = message(response)
    assert first_line == f"HTTP/1.1 {got.status_code} {got.reason_phrase}"
    assert headers.items() <= got.headers.items()
    assert json.loads(body) == got.json()


def message(block: Block) -> tuple[str, dict[str, str], str]:
    """Take a message of HTTP apart."""
    head, _, body = block.code.partition("\n\n")
    first_line, *lines = head.splitlines()
    return first_line, dict(line.split(": ", 1) for line in lines), body


def test_the_state_of_a_key_is_as_it_is_told(alice: Account) -> None:
    """With these members."""
    (block,) = blocks("json")
    headers = {"Authorization": f"Bearer {ALICE.token}", **KEY}
    order = {"amount": "1", "currency": "EUR", "card": "tok_visa"}
    Client().post("/payments/", order, "application/json", headers=headers)

    state = Client().get("/idempotency/keys/mine/", headers=headers).json()

    assert block.page.name == "http-contract.md"
    assert [*json.loads(block.code)] == [*state]


@pytest.mark.parametrize("block", blocks("html"), ids=str)
def test_a_template_renders(block: Block) -> None:
    """With the key's field in it."""
    html = engines["django"].from_string(block.code).render({"form": CheckoutForm()})

    assert 'name="idempotency_key"' in html


def test_units_of_systemd_are_read() -> None:
    """They have the sections they must have, and run commands that exist."""
    service, timer = (configparser.ConfigParser(), configparser.ConfigParser())
    for parser, block in zip((service, timer), blocks("ini"), strict=True):
        parser.read_string(block.code)

    check(shlex.split(service["Service"]["ExecStart"]))
    assert service["Service"]["Type"] == "oneshot"
    assert timer["Timer"]["OnCalendar"]


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("block", blocks("sql"), ids=str)
def test_sql_is_executed(block: Block) -> None:
    """By PostgreSQL, for the role and the database of the tests; and then it is rolled back."""
    sql = re.sub("ROLE shop IN DATABASE shop", "ROLE {0} IN DATABASE {1}", block.code)
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute("SELECT quote_ident(current_user), quote_ident(current_database())")
        cursor.execute(sql.format(*cursor.fetchone()))
        transaction.set_rollback(True)


def test_queries_name_metrics_that_there_are() -> None:
    """By the names that Prometheus makes of them."""
    source = (CHECKOUT / "idempotency/telemetry.py").read_text()
    counters = re.findall(r'create_counter\(\s*"([\w.]+)"', source)
    told = set(re.findall(r"\bidempotency_\w+(?=\{)", blocks("promql")[0].code))

    assert told == {f"{name.replace('.', '_')}_total" for name in counters}


def test_samples_of_output_are_true() -> None:
    """The demo's scenes, what the purge says, and a line of cron's.

    What the capacity model prints is compared by ``test_benchmarks.py``.
    """
    texts = {block.page.name: [] for block in blocks("text")}  # type: ignore[var-annotated]
    for block in blocks("text"):
        texts[block.page.name].append(block.code)

    texts.pop("scaling.md")
    (demo,) = texts.pop("README.md")
    assert [scene for scene in SCENES if f"✓ {scene}\n" not in demo] == []
    purged, cron = texts.pop("purge.md")
    source = CHECKOUT / "idempotency/management/commands/purge_idempotency_keys.py"
    assert "Deleted {_keys(purged.rows)}.{rest}" in source.read_text()
    assert looks_like("Deleted … expired idempotency keys.", purged)
    check(shlex.split(cron.partition(" && ")[2]))
    assert texts == {}
