"""The log: what an operator gets to read, and what never gets into it."""

import logging
from typing import Any

import pytest
from conftest import MakeDoor
from django.http import HttpRequest, HttpResponse
from test_decorators import created
from test_signals import breaking, conflict, raise_error

from idempotency import logs

BODY = "4111111111111111"


@pytest.fixture(autouse=True)
def read_all(caplog: pytest.LogCaptureFixture) -> None:
    """Have the records of every level."""
    caplog.set_level(logging.DEBUG, "idempotency")


def read(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Give level and message of our records."""
    ours = [record for record in caplog.records if record.name == "idempotency"]
    return [(record.levelname, record.getMessage()) for record in ours]


def test_each_outcome_has_its_level(
    make_function_door: MakeDoor, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning is what somebody should look at; what goes as it should is no more than info."""
    door = make_function_door(breaking(raise_error), required=True)
    door(1), door(1), door(1), door(2)
    door.key = ""
    door()

    assert read(caplog) == [
        ("WARNING", "POST work/: failed"),
        ("DEBUG", "POST work/: executed"),
        ("INFO", "POST work/: replayed"),
        ("WARNING", "POST work/: key_reused"),
        ("INFO", "POST work/: refused"),
    ]


@pytest.mark.parametrize(("status", "level"), [(400, "INFO"), (500, "WARNING")])
def test_a_view_that_turns_a_request_down_is_no_warning(
    make_function_door: MakeDoor, caplog: pytest.LogCaptureFixture, status: int, level: str
) -> None:
    """Though nothing of it is kept; a view that fails is."""
    make_function_door(lambda request: HttpResponse(status=status))()

    assert read(caplog) == [(level, "POST work/: failed")]


def test_a_conflict_in_the_database_is_a_warning(
    make_function_door: MakeDoor, caplog: pytest.LogCaptureFixture
) -> None:
    """Many of them mean that two views lock in different orders."""
    make_function_door(breaking(conflict))()

    assert read(caplog) == [("WARNING", "POST work/: transaction_conflict")]


def test_a_record_has_the_facts_as_attributes(
    make_function_door: MakeDoor, caplog: pytest.LogCaptureFixture
) -> None:
    """A formatter that writes JSON, or a filter, finds them there."""
    door = make_function_door(created, scope=lambda request: "partner:1")
    door(), door()

    first, retry = (vars(record) for record in caplog.records if record.name == "idempotency")
    expected = {"scope": "partner:1", "operation": "POST work/", "status_code": 201, "waited": 0}
    assert first | expected | {"outcome": "executed", "attempt": 1} == first
    assert retry | expected | {"outcome": "replayed", "attempt": None} == retry
    assert first["key"] == retry["key"] == f"{door.key[:8]}…"
    assert 0 < retry["overhead"] < 30


@pytest.mark.parametrize(
    ("key", "shown"),
    [("8e03978e-40d5-43dd", "8e03978e…"), ("8e03978e", "8e03…"), ("abc", "a…"), ("a", "…")],
)
def test_a_key_is_shortened(key: str, shown: str) -> None:
    """To eight characters, and never to more than half of it."""
    assert logs.shortened(key) == shown


def everything(record: logging.LogRecord) -> str:
    """Give all that a handler could write of a record."""
    return f"{record.getMessage()} {vars(record)}"


@pytest.mark.parametrize("key", ["8e03978e-40d5-43dd-bc93-6894a57f9324", "order-17", "%s%d{0}\\n"])
def test_no_outcome_logs_the_key_or_the_body(
    make_door: MakeDoor, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """Whatever happens, neither the whole key nor anything of a request or answer is written."""
    replies: Any = iter([raise_error, conflict, lambda: HttpResponse(BODY, status=400)])

    def work(request: HttpRequest) -> Any:
        for reply in replies:
            return reply()
        return HttpResponse(BODY)

    door = make_door(work, scope=lambda request: "partner:1")
    door.key = f'"{key.replace(chr(92), chr(92) * 2)}"'
    for order in [{"card": BODY}] * 5:
        door(order)
    door({"card": "another"})

    ours = [record for record in caplog.records if record.name == "idempotency"]
    assert [vars(record)["outcome"] for record in ours] == [
        "failed",
        "transaction_conflict",
        "failed",
        "executed",
        "replayed",
        "key_reused",
    ]
    for record in ours:
        assert key not in everything(record)
        assert BODY not in everything(record)
        assert "\n" not in everything(record)
