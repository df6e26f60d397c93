"""A streaming standby: how it is built, and promoted when the primary is lost."""

import os
import signal
import time
from dataclasses import replace

from .observer import Observer
from .processes import free_port
from .server import Server

LAG = 0.3
"""Seconds that an asynchronous standby is behind when the primary is lost."""


def follow(primary: Server, mode: str) -> Server:
    """Build a standby with ``pg_basebackup``; `mode` is ``sync`` or ``async``."""
    expect(primary, mode)
    standby = replace(primary, port=free_port(), process=None)
    standby.run(
        "pg_basebackup", "-D", standby.data, "-R", "-c", "fast", "--no-sync", "-w",
        "-h", "127.0.0.1", "-p", primary.port, "-U", "shop",
    )  # fmt: skip
    standby.start()
    await_standby(primary, mode)
    return standby


def expect(primary: Server, mode: str) -> None:
    """Make every COMMIT wait for the standby if it is synchronous, and else for none.

    By name: any would do for a COMMIT, also ``pg_basebackup`` while it builds the next one.
    """
    names = "walreceiver" if mode == "sync" else ""
    with primary.connect() as session:
        session.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        session.execute("SELECT pg_reload_conf()")


def await_standby(primary: Server, mode: str) -> int:
    """Wait until the standby has all there is; give the process id of what sends it.

    One that is known to be behind is not promoted, unless that is the fault.
    """
    with Observer(lambda: primary) as observer:
        caught_up = (
            "SELECT pid FROM pg_stat_replication WHERE state = 'streaming' AND application_name ="
            " 'walreceiver' AND sync_state = %s AND flush_lsn >= pg_current_wal_flush_lsn()"
        )
        if not observer.wait_until(caught_up, mode):
            raise TimeoutError("The standby does not catch up.")
        ((pid,),) = observer.ask(
            "SELECT pid FROM pg_stat_replication WHERE application_name = 'walreceiver'"
        )
    return int(str(pid))


def catch_up(primary: Server, mode: str) -> None:
    """Wait until the standby has all there is; from then on an asynchronous one gets no more."""
    sender = await_standby(primary, mode)
    if mode == "async":
        os.kill(sender, signal.SIGSTOP)
        time.sleep(LAG)


def part(primary: Server, standby: Server) -> None:
    """Part a standby from its primary, which goes on to wait for it."""
    with standby.connect() as session:
        session.execute("ALTER SYSTEM SET primary_conninfo = ''")
        session.execute("SELECT pg_reload_conf()")
    with Observer(lambda: primary) as observer:
        parted = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_replication)"
        if not observer.wait_until(parted):
            raise TimeoutError("The standby is not parted.")


def promote(primary: Server, standby: Server) -> None:
    """Lose the primary, and promote its standby, whatever that one has."""
    primary.lose()
    with standby.connect() as session:
        ((is_promoted,),) = session.execute("SELECT pg_promote()").fetchall()
    if not is_promoted:
        raise TimeoutError("The standby is not promoted.")
