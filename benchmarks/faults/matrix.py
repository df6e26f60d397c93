"""The faults: what each does to the connection that a trap holds, and at which steps."""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from .proxy import LOCKED, MOMENTS, STEPS, Link
from .world import World

Injection = Callable[[World, Link, random.Random], "float | None"]
"""Does it, and says how the held connection goes on: see `proxy.Trap.release`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and where it may be injected."""

    name: str
    inject: Injection
    steps: tuple[str, ...] = tuple(STEPS)
    moments: tuple[str, ...] = MOMENTS


def _kill(_world: World, link: Link, _chance: random.Random) -> float:
    with suppress(ProcessLookupError):
        os.kill(link.worker, signal.SIGKILL)
    return 0


def _ask_to_end(_world: World, link: Link, _chance: random.Random) -> None:
    with suppress(ProcessLookupError):
        os.kill(link.worker, signal.SIGTERM)


def _terminate(world: World, link: Link, _chance: random.Random) -> None:
    with world.session() as session:
        session.execute("SELECT pg_terminate_backend(%s, 5000)", (link.backend,))


def _crash(world: World, _link: Link, _chance: random.Random) -> None:
    world.crash_server()


def _cut(_world: World, _link: Link, chance: random.Random) -> float:
    return chance.random()


def _delay(_world: World, _link: Link, chance: random.Random) -> None:
    time.sleep(chance.uniform(0.02, 0.2))


def _stall(_world: World, _link: Link, chance: random.Random) -> None:
    time.sleep(chance.uniform(2, 3))  # longer than a client waits for its answer


def _hang(world: World, link: Link, _chance: random.Random) -> float:
    with suppress(ProcessLookupError):
        os.kill(link.worker, signal.SIGSTOP)
    wait_until_free(world, link.key)
    with suppress(ProcessLookupError):
        os.kill(link.worker, signal.SIGKILL)
    return 0


def _deadlock(world: World, link: Link, _chance: random.Random) -> None:
    """Lock the account that the worker will want, and wait for the key that it has."""
    account = re.search(r'"shop_account"."id" = (\d+)', link.sql)
    if account is None or link.key is None:
        raise RuntimeError(f"The statement is not what was expected: {link.sql}")
    rival = world.session()
    rival.execute("SET deadlock_timeout = '30s'")  # so that it is the worker who notices
    rival.execute("BEGIN")
    rival.execute("SELECT 1 FROM shop_account WHERE id = %s FOR NO KEY UPDATE", (account[1],))
    waiting = threading.Thread(target=_want_key, args=(rival, link.key))
    waiting.start()
    with world.session() as session:
        while not session.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'",
            (rival.info.backend_pid,),
        ).rowcount:
            if not waiting.is_alive():
                return
            time.sleep(0.005)


def _want_key(rival: "psycopg.Connection[tuple[object, ...]]", key: str) -> None:
    with suppress(psycopg.Error), rival:
        rival.execute("SELECT 1 FROM idempotency_key WHERE id = %s FOR UPDATE", (key,))


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", _kill),
        Fault("term", _ask_to_end),
        Fault("terminate", _terminate),
        Fault("crash", _crash),
        Fault("cut", _cut),
        Fault("delay", _delay),
        Fault("stall", _stall),
        Fault("hang", _hang, steps=(*LOCKED[:-1],)),
        Fault("deadlock", _deadlock, steps=("update",), moments=("before",)),
    )
}


def wait_until_free(world: World, key: str | None) -> None:
    """Wait until nobody holds a key's row, or it is not there.

    Raises:
        TimeoutError: Somebody still does after 30 seconds.
    """
    deadline = time.monotonic() + 30
    with world.session() as session:
        while time.monotonic() < deadline:
            held = session.execute(
                "SELECT 1 FROM idempotency_key WHERE id = %s AND id NOT IN"
                " (SELECT id FROM idempotency_key WHERE id = %s FOR KEY SHARE SKIP LOCKED)",
                (key, key),
            ).rowcount
            if not held:
                return
            time.sleep(0.002)
    raise TimeoutError(f"The row {key} is still locked.")
