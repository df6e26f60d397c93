"""A request that a trap holds, for a fault to strike, and all that is around it."""

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from .observer import Observer
from .proxy import LOCKED, Trap
from .server import Session
from .world import World


class Missed(Exception):
    """Another fault was faster: there is nothing left to strike."""


@dataclass
class Scene:
    """A request that is held in a trap, and all that is around it."""

    world: World
    observer: Observer
    trap: Trap
    chance: random.Random
    struck: float = field(default_factory=time.monotonic)
    """When the fault struck, by `time.monotonic`."""

    def __post_init__(self) -> None:
        link = self.trap.held
        self.worker, self.sql, self.row = link.worker, link.sql, link.row
        self.key = link.key if self.trap.step in LOCKED else None
        """Primary key of the row that the request has locked, if it has."""

    def signal_worker(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        try:
            os.kill(self.worker, number)
        except ProcessLookupError as error:
            raise Missed from error

    def backends(self) -> list[int]:
        """Return PostgreSQL's process for the connection; with PgBouncer, all for its worker."""
        if not self.world.setting.is_pooled:
            return [self.trap.held.backend]
        name = f"shop-{self.worker}"
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        return [int(str(pid)) for (pid,) in self.observer.ask(query, name)]

    @contextmanager
    def rival(self) -> Iterator[Session]:
        """Open a session in whose transaction the account that the view has read is locked."""
        account = re.search(r'"shop_account"."id" = (\d+)', self.sql)
        if account is None:
            raise RuntimeError(f"The statement is not what was expected: {self.sql}")
        with closing(self.world.server.connect("off")) as session:
            session.execute("SET deadlock_timeout = '30s'")  # it is the worker who has to notice
            session.execute("SET lock_timeout = '20s'")
            session.execute("BEGIN")
            session.execute(
                "UPDATE shop_account SET balance = balance WHERE id = %s", account.groups()
            )
            yield session

    def let_wait_for(self, rival: Session) -> None:
        """Send the request on, into a lock that the rival has."""
        self.trap.release()
        blocked = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        if not self.observer.wait_until(blocked, rival.info.backend_pid, seconds=2):
            raise Missed
