"""Wiring: the app's name, and its start-up checks."""

from django.apps import AppConfig, apps
from django.core import checks


class IdempotencyConfig(AppConfig):
    """Registers the app as ``idempotency``."""

    name = "idempotency"
    verbose_name = "Idempotency"

    def ready(self) -> None:
        from . import checks as our_checks  # noqa: PLC0415  # models are not ready before

        checks.register(our_checks.check_settings)
        checks.register(our_checks.check_database)
        if apps.is_installed("drf_spectacular"):
            from . import openapi  # noqa: F401, PLC0415  # importing it registers it
