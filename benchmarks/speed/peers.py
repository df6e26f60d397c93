"""What is compared, and what each needs to be installed."""

from dataclasses import dataclass
from typing import Final

COMMON: Final = ("Django>=5.2,<5.3", "djangorestframework", "psycopg[binary]", "gunicorn")
"""What all of them get, in the newest version that every one admits."""

BARE: Final = "bare"
OURS: Final = "ours"


@dataclass(frozen=True, slots=True)
class Peer:
    """A variant of the project."""

    name: str
    requirements: tuple[str, ...] = ()
    """Beside `COMMON`; of ours none, for it is in the checkout."""
    store: str = ""
    """Where it keeps keys and answers."""

    @property
    def schema(self) -> str:
        """Its tables' own schema."""
        return self.name.replace("-", "_")


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(BARE),
        Peer(OURS, store="PostgreSQL"),
    )
}
