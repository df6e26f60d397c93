"""The primary key of a row, which follows from its scope and key: in Python and in SQL."""

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import F, Func, Value
from django.db.models.functions import Cast, Length


def digest(scope: str, key: str) -> UUID:
    """Give the primary key for a scope and a key.

    4 bytes of the key's SHA-256, and 12 of that of both: too many for two keys to meet by
    chance or intent. The scope's length goes in front, so that no two pairs join to the same
    text.
    """
    return UUID(bytes=_sha256(key)[:4] + _sha256(f"{len(scope)}:{scope}{key}")[:12])


def span(key: str) -> tuple[UUID, UUID]:
    """Give the least and the greatest primary key that a key can have, whatever its scope."""
    first = _sha256(key)[:4]
    return UUID(bytes=first + bytes(12)), UUID(bytes=first + b"\xff" * 12)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class DigestField(models.UUIDField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Primary key that follows from the row's scope and key, see `digest`."""

    def get_pk_value_on_save(self, instance: Any) -> UUID:
        """Fill in the digest where ``save()`` and ``bulk_create()`` would fill in a default."""
        return digest(instance.scope, instance.key)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        """Be a plain UUIDField to migrations: the column is no more than that."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.UUIDField", args, kwargs


def _digest_bytes(text: F | Func, count: int) -> Func:
    encoded = Func(text, Value("UTF8"), function="convert_to")
    first = Func(Func(encoded, function="sha256"), Value(1), Value(count), function="substr")
    return Func(first, Value("hex"), function="encode")


_PAIR = Func(Length("scope"), Value(":"), F("scope"), F("key"), function="concat")
_HEX = Func(_digest_bytes(F("key"), 4), _digest_bytes(_PAIR, 12), function="concat")
COMPUTED = Cast(_HEX, models.UUIDField())
"""`digest` as the database computes it, whatever its own encoding is."""
