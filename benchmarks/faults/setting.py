"""What the shop runs on during a round."""

from dataclasses import dataclass

ISOLATIONS = ("read committed", "repeatable read", "serializable")
STANDBYS = ("none", "sync", "async")


@dataclass(frozen=True, slots=True)
class Setting:
    """The isolation level, and what there is beside the primary."""

    isolation: str = ISOLATIONS[0]
    standby: str = STANDBYS[0]
    is_pooled: bool = False
    """Whether PgBouncer is in between."""

    def __str__(self) -> str:
        standby = "" if self.standby == STANDBYS[0] else f", {self.standby}"
        return f"{self.isolation}{standby}{', PgBouncer' * self.is_pooled}"
