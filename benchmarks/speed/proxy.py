"""A longer way to the database: bytes come late, and the round trips are counted."""

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from select import select

_HOST = "127.0.0.1"
_CHUNK = 65_536


@dataclass(eq=False, slots=True)
class _Side:
    """One end of a connection."""

    socket: socket.socket
    is_client: bool
    other: "_Side" = field(init=False, repr=False)
    is_answered: bool = True

    def close(self) -> None:
        """End both ends."""
        self.socket.close()
        self.other.socket.close()


class Link:
    """Passes connections on to another address, all bytes late by the same time.

    Whatever is under way does not hold up what comes behind it: as on a long cable, and not as at
    a busy counter.
    """

    def __init__(self, host: str, port: int, delay: float) -> None:
        self.round_trips = 0
        """How often a client has sent something after it had been answered."""
        self._target = (host, port)
        self._delay = delay
        self._late: deque[tuple[float, _Side, bytes]] = deque()
        """What is under way, in its order: when it is due, where, and the bytes."""
        self._sides: dict[socket.socket, _Side] = {}
        self._listener = socket.create_server((_HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and all connections with it."""
        self._end.close()
        self._thread.join()

    def _run(self) -> None:
        with self._ended, self._listener:
            while self._ended not in (ready := self._wait()):
                for one in ready:
                    if one is self._listener:
                        self._accept()
                    else:
                        self._receive(self._sides[one])
                while self._late and self._late[0][0] <= time.monotonic():
                    _, side, data = self._late.popleft()
                    self._send(side, data)
        for side in (*self._sides.values(), *(side for _, side, _ in self._late)):
            side.close()

    def _wait(self) -> list[socket.socket]:
        # Who sleeps wakes up late, by a tenth of a millisecond.
        patience = 0 if self._late else None
        return select([self._ended, self._listener, *self._sides], (), (), patience)[0]

    def _accept(self) -> None:
        near = _Side(self._listener.accept()[0], is_client=True)
        far = _Side(socket.create_connection(self._target), is_client=False)
        near.other, far.other = far, near
        for side in (near, far):
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sides[side.socket] = side

    def _receive(self, side: _Side) -> None:
        data = b""
        with suppress(OSError):
            data = side.socket.recv(_CHUNK)
        if not data:
            del self._sides[side.socket]
        elif side.is_client and side.is_answered:
            side.is_answered = False
            self.round_trips += 1
        self._late.append((time.monotonic() + self._delay, side.other, data))

    def _send(self, side: _Side, data: bytes) -> None:
        side.is_answered = True
        with suppress(OSError):
            if data:
                side.socket.sendall(data)
                return
        self._sides.pop(side.socket, None)
        self._sides.pop(side.other.socket, None)
        side.close()


@contextmanager
def link(host: str, port: int, delay: float = 0) -> Iterator[Link]:
    """Give a link to an address, ``delay`` seconds long each way, and end it."""
    made = Link(host, port, delay)
    try:
        yield made
    finally:
        made.stop()
