"""Wiring: the app's name, and its start-up checks."""

from django.apps import AppConfig
from django.core import checks


class IdempotencyConfig(AppConfig):
    """Registers the app as ``idempotency``."""

    name = "idempotency"
    verbose_name = "Idempotency"

    def ready(self) -> None:
        from . import checks as ours  # noqa: PLC0415  # models are not ready before
        from . import server_checks, view_checks  # noqa: PLC0415

        checks.register(ours.check_settings)
        checks.register(ours.check_database)
        checks.register(ours.check_autocommit)
        checks.register(ours.check_expiry)
        checks.register(ours.check_aliases)
        checks.register(ours.check_mirror)
        checks.register(ours.check_middleware)
        checks.register(view_checks.check_views)
        checks.register(server_checks.check_server, checks.Tags.database)
