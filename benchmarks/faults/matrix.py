"""The faults: what each does to the connection that a trap holds, and at which steps."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from . import clock, replication, uploads
from .proxy import LOCKED, MOMENTS, STEPS
from .scene import Missed, Scene
from .server import PRLIMIT, Server, Session
from .setting import ISOLATIONS, Setting

_WRITES = LOCKED[1:]

_WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, how often it is drawn, and where it may be injected."""

    name: str
    weight: int
    inject: Callable[[Scene], None]
    steps: tuple[str, ...] = tuple(STEPS)
    moments: tuple[str, ...] = MOMENTS
    fits: Callable[[Setting], bool] = lambda _: True
    """Whether it can be injected in a setting."""


def _kill(scene: Scene) -> None:
    scene.signal_worker(signal.SIGKILL)
    scene.trap.release(0)


def _ask_to_end(scene: Scene) -> None:
    scene.signal_worker(signal.SIGTERM)


def _terminate(scene: Scene) -> None:
    ended = [
        scene.observer.ask("SELECT pg_terminate_backend(%s, 5000)", pid) for pid in scene.backends()
    ]
    if [(True,)] not in ended:
        raise Missed


def _crash(scene: Scene) -> None:
    scene.world.crash()


def _fail_over(scene: Scene) -> None:
    scene.world.fail_over()


def _part_and_fail_over(scene: Scene) -> None:
    """Part the standby, end the wait of commits for it, and lose what it has not got."""

    def end_waits(primary: Server, standby: Server) -> None:
        replication.part(primary, standby)
        scene.trap.release()
        if not scene.observer.wait_until(f"SELECT 1 {_WAITING}"):
            raise TimeoutError("No COMMIT waits for the standby.")
        end = scene.chance.choice(("", "pg_terminate_backend", "pg_cancel_backend"))
        if end:
            scene.observer.ask(f"SELECT {end}(pid) {_WAITING}")
        else:
            primary.crash()
        time.sleep(3)  # for a retry of a client that has waited for its answer

    scene.world.fail_over(end_waits)


def _cut(scene: Scene) -> None:
    scene.trap.release(scene.chance.random())


def _delay(scene: Scene) -> None:
    time.sleep(scene.chance.uniform(0.02, 0.2))


def _stall(scene: Scene) -> None:
    time.sleep(scene.chance.uniform(2, 3))  # longer than a client waits for its answer


def _slow(scene: Scene) -> None:
    """Keep the view in a statement for longer than anybody waits for it."""
    with scene.rival() as rival:
        scene.let_wait_for(rival)
        time.sleep(scene.chance.uniform(2.5, 5))


def _hang(scene: Scene) -> None:
    scene.signal_worker(signal.SIGSTOP)
    if scene.key:
        scene.observer.wait_until_free(scene.key)
    with suppress(Missed):
        scene.signal_worker(signal.SIGKILL)
    scene.trap.release(0)


def _orphan(scene: Scene) -> None:
    """Kill a worker while its statement runs, and goes on to run."""
    with scene.rival() as rival:
        scene.let_wait_for(rival)
        scene.struck = time.monotonic()
        scene.signal_worker(signal.SIGKILL)
        if scene.key:
            scene.observer.wait_until_free(scene.key)


def _deadlock(scene: Scene) -> None:
    """Have the account that the worker will want, and want the key that it has."""
    with scene.rival() as rival:
        waiting = threading.Thread(target=_want_key, args=(rival, scene.key))
        waiting.start()
        scene.observer.wait_until(
            "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s"
            " AND state <> 'idle' AND wait_event_type IS DISTINCT FROM 'Lock')",
            rival.info.backend_pid,
        )
        scene.trap.release()
        waiting.join()


def _want_key(rival: Session, key: str | None) -> None:
    with suppress(psycopg.Error):
        rival.execute("SELECT 1 FROM idempotency_key WHERE id = %s FOR UPDATE", (key,))
        rival.execute("ROLLBACK")


def _overtake(scene: Scene) -> None:
    """Change the account after the view has read it, and before it writes it."""
    with scene.rival() as rival:
        rival.execute("COMMIT")


def _put_clock_off(scene: Scene) -> None:
    hours = scene.chance.uniform(25, 48)  # longer than a key lives
    clock.set_off(scene.world.clock, scene.chance.choice((-1, 1)) * hours * 3600)


def _fill_disk(scene: Scene) -> None:
    """Make all writes to files fail for a while: of the WAL, which PostgreSQL does not survive."""
    with scene.world.upheaval():
        backends = [it for it in scene.backends() if scene.world.server.limit_files(it, "0")]
        scene.trap.release()
        if not backends:
            raise Missed
        time.sleep(scene.chance.uniform(0.1, 0.4))
        for pid in backends:
            scene.world.server.limit_files(pid, "unlimited")
        scene.observer.ask("SELECT 1")  # once it has recovered


def _kill_bouncer(scene: Scene) -> None:
    scene.world.restart_bouncer(signal.SIGKILL)


def _restart_bouncer(scene: Scene) -> None:
    scene.world.restart_bouncer(signal.SIGTERM)


# The weights: a fault that others need not wait for comes often, one that takes seconds seldom.
FAULTS: dict[str, Fault | uploads.UploadFault] = {
    fault.name: fault
    for fault in (
        *uploads.FAULTS,
        Fault("kill", 12, _kill),
        Fault("term", 6, _ask_to_end),
        Fault("terminate", 10, _terminate),
        Fault("cut", 14, _cut),
        Fault("delay", 6, _delay),
        Fault("clock", 4, _put_clock_off),
        Fault("deadlock", 6, _deadlock, ("update",), ("before",)),
        Fault(
            "overtake", 8, _overtake, ("update",), ("before",),
            lambda setting: setting.isolation != ISOLATIONS[0],
        ),
        Fault("orphan", 2, _orphan, ("update",), ("before",)),
        Fault("hang", 2, _hang, (*LOCKED[:-1],)),
        Fault("stall", 2, _stall),
        Fault("slow", 2, _slow, ("update",), ("before",)),
        Fault("crash", 2, _crash),
        Fault(
            "disk-full", 2, _fill_disk, (*_WRITES,), ("before",),
            lambda _: PRLIMIT is not None,
        ),
        Fault("failover-sync", 2, _fail_over, fits=lambda it: it.standby == "sync"),
        Fault("failover-async", 2, _fail_over, fits=lambda it: it.standby == "async"),
        Fault(
            "failover-parted", 2, _part_and_fail_over, ("save and COMMIT",), ("before",),
            lambda it: it.standby == "sync",
        ),
        Fault("bouncer-kill", 2, _kill_bouncer, fits=lambda it: it.is_pooled),
        Fault("bouncer-restart", 2, _restart_bouncer, fits=lambda it: it.is_pooled),
    )
}  # fmt: skip
