"""`manage.py purge_idempotency_keys`, called and as a real process, on a terminal and off."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from support import (
    CHECKOUT,
    DEADLINE,
    PAUSED,
    database_url,
    eventually,
    paused_deletes,
    put_expired,
    unreachable_database,
    waiting_for_a_lock,
)

from idempotency.models import IdempotencyKey, Purge

COMMAND = [sys.executable, str(CHECKOUT / "manage.py"), "purge_idempotency_keys"]

Process = subprocess.Popen[str]
Start = Callable[..., Process]


def run(*arguments: str, stdout: StringIO | None = None) -> str:
    """Call the command, and give what it wrote, errors last."""
    out, err = stdout or StringIO(), StringIO()
    call_command("purge_idempotency_keys", *arguments, stdout=out, stderr=err)
    return out.getvalue() + err.getvalue()


@pytest.mark.usefixtures("committed")
def test_it_says_how_many_it_deleted() -> None:
    """In one sentence, with their number for people."""
    assert run() == "Deleted 0 expired idempotency keys.\n"
    put_expired("a")
    assert run() == "Deleted 1 expired idempotency key.\n"
    put_expired(*map(str, range(1234)))
    assert run() == "Deleted 1,234 expired idempotency keys.\n"
    assert not IdempotencyKey.objects.exists()


@pytest.mark.usefixtures("committed")
def test_it_says_when_some_are_left() -> None:
    """For want of a larger budget."""
    put_expired(*"abcd")

    left = " Some are left for the next purge.\n"
    assert run("--max-rows=1") == f"Deleted 1 expired idempotency key.{left}"
    assert run("--max-seconds=1e-9") == f"Deleted 0 expired idempotency keys.{left}"
    assert run("--max-rows=3", "--batch-size=2", "--max-seconds=60", "--database=default") == (
        "Deleted 3 expired idempotency keys.\n"
    )


@pytest.mark.usefixtures("committed")
def test_a_dry_run_deletes_nothing() -> None:
    """It counts what a purge with this budget would delete, and leaves no record of one."""
    put_expired("a", "b")

    assert run("--dry-run") == "2 expired idempotency keys would be deleted.\n"
    assert run("--dry-run", "--max-rows=1") == "1 expired idempotency key would be deleted.\n"
    assert IdempotencyKey.objects.count() == 2
    assert not Purge.objects.exists()


@pytest.mark.usefixtures("committed")
def test_it_says_when_the_purge_has_not_run_for_too_long() -> None:
    """Before it makes up for it."""
    put_expired("a", ago="75 hours")

    told = "The oldest key expired 3 days ago: the purge has not run for too long, or does not"
    assert told in run("--dry-run")
    assert told in run()
    assert told not in run()


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--batch-size=0", "'0' is not a whole number of at least 1."),
        ("--max-rows=1.5", "'1.5' is not a whole number of at least 1."),
        ("--max-rows=-1", "'-1' is not a whole number of at least 1."),
        ("--max-seconds=soon", "'soon' is not a number of seconds above 0."),
        ("--max-seconds=inf", "'inf' is not a number of seconds above 0."),
        ("--max-seconds=nan", "'nan' is not a number of seconds above 0."),
        ("--database=other", "There is no database 'other', only default."),
    ],
)
def test_arguments_that_cannot_be_are_refused(argument: str, sentence: str) -> None:
    """With a sentence, before the database is asked."""
    with pytest.raises(CommandError, match=sentence):
        run(argument)


def test_another_database_than_postgresql_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sentence in place of its syntax error."""
    monkeypatch.setattr(connections["default"], "vendor", "sqlite")

    with pytest.raises(CommandError, match="idempotency keys are kept in PostgreSQL"):
        run()


@pytest.mark.usefixtures("committed")
def test_a_database_that_cannot_be_reached_is_an_error() -> None:
    """In one line."""
    with unreachable_database():
        with pytest.raises(
            CommandError, match=r"^(connection failed: |couldn't get a connection ).*\.$"
        ):
            run()


class Terminal(StringIO):
    """Looks like one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("committed")
def test_without_rich_a_terminal_gets_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else."""
    monkeypatch.setitem(sys.modules, "rich", None)
    put_expired("a")

    assert run("--no-color", stdout=Terminal()) == "Deleted 1 expired idempotency key.\n"


# As a real process


@pytest.fixture
def start(committed: None) -> Iterator[Start]:
    """Start the command on the test database; it is dead at the end."""
    processes: list[Process] = []

    def start_command(*arguments: str, **options: Any) -> Process:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        environment = {**os.environ, "DATABASE_URL": database_url(), "TERM": "xterm"}
        process = subprocess.Popen([*COMMAND, *arguments], env=environment, text=True, **output)
        processes.append(process)
        return process

    yield start_command
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_it_after_the_batch(start: Start, number: signal.Signals, code: int) -> None:
    """The batch is committed, the sentence is said, and the exit code tells the signal."""
    put_expired("a", PAUSED, "b")

    with paused_deletes("BEFORE ROW") as go_on:
        command = start("--batch-size=1")
        eventually(lambda: waiting_for_a_lock() == 1)
        command.send_signal(number)
        go_on()
        output, _ = command.communicate(timeout=DEADLINE)

    assert output == (
        "Deleted 2 expired idempotency keys. Some are left for the next purge.\n"
        f"CommandError: Ended early by {number.name}.\n"
    )
    assert command.returncode == code
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["b"]
    record = Purge.objects.get()
    assert record.rows == 2
    assert record.ended_at


@pytest.mark.slow
def test_a_signal_in_the_last_batch_changes_nothing(start: Start) -> None:
    """The purge is complete, and so it says and so it exits."""
    put_expired(PAUSED)

    with paused_deletes("BEFORE ROW") as go_on:
        command = start()
        eventually(lambda: waiting_for_a_lock() == 1)
        command.send_signal(signal.SIGTERM)
        go_on()
        output, _ = command.communicate(timeout=DEADLINE)

    assert (output, command.returncode) == ("Deleted 1 expired idempotency key.\n", 0)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    """Though its batch is under way: PostgreSQL ends or drops that alone."""
    put_expired("a", PAUSED)

    with paused_deletes("BEFORE ROW"):
        command = start("--batch-size=1")
        eventually(lambda: waiting_for_a_lock() == 1)
        command.send_signal(signal.SIGTERM)
        eventually(lambda: not catches_sigterm(command.pid))
        command.send_signal(signal.SIGTERM)
        assert command.wait(DEADLINE) == -signal.SIGTERM

    eventually(lambda: waiting_for_a_lock() == 0)
    assert Purge.objects.get().ended_at is None


def catches_sigterm(pid: int) -> bool:
    """Tell whether a process has a handler of its own for it."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
def test_a_lost_connection_is_told_with_what_had_been_done(start: Start) -> None:
    """What was committed stays."""
    put_expired("a", PAUSED, "b")

    with paused_deletes("BEFORE ROW"):
        command = start("--batch-size=1")
        eventually(lambda: waiting_for_a_lock() == 1)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        output, _ = command.communicate(timeout=DEADLINE)

    assert output.startswith("CommandError: terminating connection")
    assert "At least 1 expired idempotency key had been deleted.\n" in output
    assert command.returncode == 1
    assert IdempotencyKey.objects.count() == 2


@pytest.mark.slow
def test_a_terminal_sees_a_bar(start: Start) -> None:
    """It moves with each batch, and makes place for the sentence."""
    pytest.importorskip("rich")
    put_expired("a", PAUSED, "b", "c")
    terminal, ours = pty.openpty()
    shown = ""

    def see(text: str) -> bool:
        nonlocal shown
        shown += os.read(terminal, 10_000).decode()
        return text in shown

    try:
        with paused_deletes("BEFORE ROW") as go_on:
            command = start("--batch-size=1", stdin=ours, stdout=ours, stderr=ours)
            eventually(lambda: see("1/4"))
            assert "Deleted" not in shown
            go_on()
            eventually(lambda: see("Deleted 4 expired idempotency keys."))
        assert command.wait(DEADLINE) == 0
    finally:
        os.close(terminal)
        os.close(ours)
    assert "━" in shown


@pytest.mark.slow
def test_off_a_terminal_there_is_no_bar(start: Start) -> None:
    """Only the sentence, for the log."""
    put_expired(*"abc")

    output, _ = start("--batch-size=1").communicate(timeout=DEADLINE)

    assert output == "Deleted 3 expired idempotency keys.\n"
