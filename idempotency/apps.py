"""Wiring: the app's name, and its start-up checks."""

from django.apps import AppConfig
from django.core import checks


class IdempotencyConfig(AppConfig):
    """Registers the app as ``idempotency``."""

    name = "idempotency"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Idempotency"

    def ready(self) -> None:
        from . import checks as our_checks  # noqa: PLC0415  # models are not ready before

        checks.register(our_checks.check_settings)
        checks.register(our_checks.check_database)
        checks.register(our_checks.check_purge, checks.Tags.database)
