"""A proxy between the shop and PostgreSQL that stops a connection at a statement, and may cut it.

It reads the messages of PostgreSQL's protocol, version 3, and knows the steps of a payment by their
SQL. Each trap is set for a step; the next connection that comes to it is held until its trap is
released, and all other connections go on.
"""

import asyncio
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field

STEPS = {
    "look": "fingerprint, status, status_code, headers",
    "claim and lock": "SELECT created_at::text, attempts, status",
    "read": 'FROM "shop_account" WHERE "shop_account"."user_id"',
    "insert": 'INSERT INTO "shop_payment"',
    "update": 'UPDATE "shop_account"',
    "save and COMMIT": "WITH saved AS",
}
"""What in its SQL each step of a payment is known by, in their order. A retry only locks."""

LOCKED = [*STEPS][2:]
"""The steps for which the key's row is locked."""

MOMENTS = ("before", "unread")
"""The statement is not sent yet; or it was carried out, and its answer is not read yet."""

_STARTUP = 196608


@dataclass(slots=True)
class Link:
    """One connection, and what has been seen on it."""

    worker: int = 0
    """The worker's process id, which it gives as ``application_name``."""
    backend: int = 0
    """PostgreSQL's process id."""
    key: str | None = None
    """Primary key of the row that it holds locked, if it does."""
    row: str = ""
    """Primary key of the row that it has asked for last."""
    sql: str = ""
    trap: "Trap | None" = None

    def note(self, step: str, sql: str) -> None:
        """Take notice of a statement."""
        self.sql = sql
        if step in LOCKED:
            return
        if row := re.search(r"id = '([0-9a-f-]{32,36})'", sql):
            self.row = row[1]
        self.key = None if step == "look" else self.row


@dataclass
class Trap:
    """Waits for a connection at a step and a moment, and holds it."""

    step: str
    moment: str
    sprung: threading.Event = field(default_factory=threading.Event)
    link: Link | None = None
    _verdict: "asyncio.Future[float | None] | None" = None

    @property
    def held(self) -> Link:
        """The connection that it holds, or has held."""
        if self.link is None:
            raise RuntimeError("The trap holds no connection.")
        return self.link

    async def hold(self, link: Link) -> float | None:
        """Hold a connection; give the share of the bytes to pass before the cut, None for all."""
        self._verdict = asyncio.get_running_loop().create_future()
        self.link = link
        self.sprung.set()
        return await self._verdict

    def release(self, cut_after: float | None = None) -> None:
        """Pass the connection on, or cut it after a share of the bytes; from another thread.

        The first time counts.
        """
        verdict = self._verdict
        if verdict is None:
            raise RuntimeError("The trap holds no connection.")

        def tell() -> None:
            if not verdict.done():
                verdict.set_result(cut_after)

        verdict.get_loop().call_soon_threadsafe(tell)


class _Cut(Exception):
    """The connection is to end now."""


class Proxy:
    """Passes connections on to a port of PostgreSQL, from a thread of its own."""

    def __init__(self) -> None:
        self.target = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self._traps: list[Trap] = []
        self._back: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to pass on."""
        self._thread.start()

    def stop(self) -> None:
        """End, and all connections with it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self.listener.close()

    def arm(self, trap: Trap) -> None:
        """Set a trap, beside those that are set."""
        self._traps.append(trap)

    def turn(self, target: int) -> None:
        """Pass on to another port from now on, and end all connections to the one before."""
        self.target = target

        def end() -> None:
            for writer in self._back:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(end)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self.listener))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(
            asyncio.gather(*asyncio.all_tasks(self._loop), return_exceptions=True)
        )
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link()
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
                self._back.add(back)
                try:
                    await self._pass(link, (reader, writer), (there, back))
                finally:
                    self._back.discard(back)
                    back.close()
        finally:
            writer.close()
            if link.trap and not link.trap.sprung.is_set():
                self.arm(link.trap)  # its connection ended otherwise: wait for another

    async def _pass(
        self,
        link: Link,
        app: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass on both ways, until either way ends."""
        ways = [
            asyncio.ensure_future(self._from_app(link, app[0], server[1])),
            asyncio.ensure_future(self._from_server(link, server[0], app[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _from_app(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first = await _read(reader, 4)
        (code,) = struct.unpack_from("!I", first, 4)
        if code == _STARTUP and (name := re.search(rb"application_name\0shop-(\d+)\0", first)):
            link.worker = int(name[1])
        writer.write(first)
        while True:
            message = await _read(reader, 5)
            step, sql = _step(message)
            if step:
                link.note(step, sql)
            if trap := self._take(step, "before"):
                await _write(writer, message, await trap.hold(link))
                continue
            if trap := self._take(step, "unread"):
                link.trap = trap
            await _write(writer, message)

    async def _from_server(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer = b""
        while True:
            message = await _read(reader, 5)
            if message[:1] == b"K":
                (link.backend,) = struct.unpack_from("!I", message, 5)
            if not link.trap:
                await _write(writer, message)
                continue
            answer += message
            if message[:1] == b"Z":
                trap, cut_after = link.trap, await link.trap.hold(link)
                link.trap = None if link.trap is trap else link.trap
                await _write(writer, answer, cut_after)
                answer = b""

    def _take(self, step: str, moment: str) -> Trap | None:
        for trap in self._traps if step else ():
            if (trap.step, trap.moment) == (step, moment):
                self._traps.remove(trap)
                return trap
        return None


async def _read(reader: asyncio.StreamReader, head: int) -> bytes:
    """Read a message, whose length stands in the last four bytes of its head."""
    start = await reader.readexactly(head)
    (length,) = struct.unpack("!I", start[-4:])
    return start + await reader.readexactly(length - 4)


async def _write(writer: asyncio.StreamWriter, data: bytes, cut_after: float | None = None) -> None:
    writer.write(data if cut_after is None else data[: int(len(data) * cut_after)])
    await writer.drain()
    if cut_after is not None:
        raise _Cut


def _step(message: bytes) -> tuple[str, str]:
    """Return the step that a message begins and its SQL; empty where it begins none."""
    if message[:1] in b"QP":
        sql = message[5:].decode(errors="replace")
        for step, sign in STEPS.items():
            if sign in sql:
                return step, sql
    return "", ""
