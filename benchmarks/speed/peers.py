"""What is compared, and what each needs to be installed."""

from dataclasses import dataclass
from typing import Final

COMMON: Final = ("Django>=5.2,<5.3", "djangorestframework", "psycopg[binary]", "gunicorn")
"""What all of them get, in the newest version that every one admits."""

_POSTGRES: Final = "PostgreSQL"
_REDIS: Final = "Redis"

TOLD: Final = frozenset(
    {
        *("Python", "Django", "djangorestframework", "psycopg", "psycopg-binary", "gunicorn"),
        *("asyncpg", "redis", "django-redis", "data-spec-validator"),
        *("drf-idempotency", "djangorestframework-idempotency-key", "drf-idempotencykey"),
        *("idemkit", "django-idempotency-key", "drf-idem"),
    }
)
"""Packages whose versions are printed."""

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

    @property
    def needs_redis(self) -> bool:
        """Tell whether there has to be a Redis for it."""
        return self.store == _REDIS


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(BARE),
        Peer(OURS, store=_POSTGRES),
        Peer("drf-idempotency", ("drf-idempotency==1.0.0",), _POSTGRES),
        Peer(
            "djangorestframework-idempotency-key",
            ("djangorestframework-idempotency-key==1.0.3",),
            _POSTGRES,
        ),
        Peer("drf-idempotencykey", ("drf-idempotencykey==0.2.0",), _POSTGRES),
        Peer("idemkit", ("idemkit[postgres]==1.0.2",), _POSTGRES),
        Peer("drf-idempotency-redis", ("drf-idempotency[redis]==1.0.0",), _REDIS),
        Peer("idemkit-redis", ("idemkit[redis]==1.0.2",), _REDIS),
        Peer("django-idempotency-key-redis", ("django-idempotency-key==1.3.0",), _REDIS),
        Peer("drf-idem-redis", ("drf-idem==0.1.1", "redis"), _REDIS),
    )
}
