"""A window on the rows, for people: who sent which key, how it stands, and what was answered.

Nothing can be added or changed here. The one thing that can be done is to evict a key.
"""

from .keys import IdempotencyKeyAdmin

__all__ = ["IdempotencyKeyAdmin"]
