"""What the clients sent and what came back, kept outside of the app: JSON lines, only appended."""

import json
import threading
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

DEFINITE = 201
"""The only answer a good payment can have in the end."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and its outcome."""

    account: str
    """Token of the account that pays."""
    key: str
    door: str
    """Which of the shop's doors it was sent to."""
    amount: int
    """In cents. No two keys of an account have the same."""
    sender: int
    """Number of the loop of retries it belongs to."""
    sent: float
    took: float
    """Seconds since the epoch, and seconds."""
    status: int | None = None
    """None for a transport error."""
    problem: str = ""
    """Last part of a problem document's type."""
    retry_after: int = 0
    """Seconds, as the answer says; 0 where it says nothing."""
    replayed: bool = False
    digest: str = ""
    """SHA-256 of the answer's body."""
    paid: int = 0
    """Primary key of the payment, as the answer has it; 0 where there is none."""
    error: str = ""
    part: str = ""
    """How much of the body was sent, where that was not all."""

    @property
    def came(self) -> float:
        """When the answer came: seconds since the epoch."""
        return self.sent + self.took

    @property
    def answer(self) -> str:
        """What kind of answer came."""
        return f"{self.status or 'none'} {self.problem}".strip()

    @property
    def is_definite(self) -> bool:
        """Whether the answer ends the retries: all do but 409, 429, 5xx and one to a part."""
        if self.status is None or self.part:
            return False
        return self.status < 500 and self.status not in {409, 429}

    @property
    def payment(self) -> tuple[str, int]:
        """What its payment is known by, without asking the app: account and amount."""
        return self.account, self.amount


class Ledger:
    """A file of attempts that many threads write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.touch()

    def write(self, attempt: Attempt) -> None:
        """Append an attempt."""
        line = json.dumps(asdict(attempt)) + "\n"
        with self._lock, self.path.open("a") as file:
            file.write(line)

    def payments(self) -> dict[tuple[str, int], list[Attempt]]:
        """Return all attempts, by the payment they are for."""
        found = defaultdict(list)
        for line in self.path.read_text().splitlines():
            attempt = Attempt(**json.loads(line))
            found[attempt.payment].append(attempt)
        return dict(found)
