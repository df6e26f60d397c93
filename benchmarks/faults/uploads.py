"""Faults between client and server: a request that is cut, and a client that does not wait."""

import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse

import httpx

from .ledger import Attempt
from .setting import Setting

_ENDS = (None, 64, 4)
"""Of how many of a body's last bytes one is where it is cut; None for all. There a part of a body
is likely to be a valid one."""

_RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: let close() send a RST, and not a FIN."""


@dataclass(frozen=True, slots=True)
class UploadFault:
    """A fault of this kind, how often it is drawn, and how the client ends."""

    name: str
    weight: int
    is_whole: bool = False
    """Whether all of the request is sent."""
    awaits: bool = False
    """Whether an answer is awaited."""
    resets: tuple[bool, ...] = (False,)
    """Whether the connection ends with a RST, and not with a FIN: any of these."""

    def fits(self, _setting: Setting) -> bool:
        """Whether it can be injected in a setting: in all."""
        return True


class CutOff(httpx.TransportError):
    """The client has ended as it was meant to, without an answer."""


@dataclass
class Cut:
    """Waits for a client that is about to send a payment, and cuts that off."""

    fault: UploadFault
    chance: random.Random
    taken: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    attempt: Attempt | None = None
    part: str = ""
    """How much of the body was sent, where that was not all."""
    is_made: bool = False
    """False where the server was not there to send it to."""

    @property
    def struck(self) -> Attempt:
        """The attempt that it cuts off."""
        if self.attempt is None:
            raise RuntimeError("No client has taken it.")
        return self.attempt

    def take(self, attempt: Attempt) -> None:
        """Choose the attempt that is cut off."""
        self.attempt = attempt
        self.taken.set()

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send as much of a request as the fault leaves of it, and return the answer.

        Raises:
            httpx.TransportError: There is none.
        """
        try:
            return self._send(request)
        except (OSError, HTTPException) as error:
            raise httpx.NetworkError(repr(error)) from error
        finally:
            self.done.set()

    def _send(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        size = len(body) if self.fault.is_whole else self._size(len(body))
        address = (request.url.host, request.url.port or 80)
        seconds = request.extensions["timeout"]["read"]
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(_head(request) + body[:size])
            self.is_made = True
            if not self.fault.is_whole:
                self.part = f"{self.fault.name} after {size} of {len(body)} bytes"
            if self.fault.awaits:
                connection.shutdown(socket.SHUT_WR)
                return _answer(connection)
            time.sleep(self.chance.uniform(0, 0.02))  # so that the server has read some of it
            if self.chance.choice(self.fault.resets):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise CutOff(self.fault.name)

    def _size(self, length: int) -> int:
        last = self.chance.choice(_ENDS) or length
        return length - self.chance.randint(1, min(last, length))


FAULTS = (
    UploadFault("upload-fin", 6, awaits=True),
    UploadFault("upload-rst", 3, resets=(True,)),
    UploadFault("hang-up", 4, is_whole=True, resets=(False, True)),
)


def _head(request: httpx.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _answer(connection: socket.socket) -> httpx.Response:
    with HTTPResponse(connection) as answer:
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
