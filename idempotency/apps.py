"""Wiring: the app's name, its start-up checks, and who hears of the outcomes."""

import atexit
from importlib import metadata

from django.apps import AppConfig, apps
from django.core import checks
from django.core.signals import request_finished
from django.utils.version import get_version_tuple

from . import signals


class IdempotencyConfig(AppConfig):
    """Registers the app as ``idempotency``."""

    name = "idempotency"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Idempotency"

    def ready(self) -> None:
        from . import checks as ours  # noqa: PLC0415  # models are not ready before
        from . import logs, server_checks, view_checks  # noqa: PLC0415
        from .tally import tally  # noqa: PLC0415

        checks.register(ours.check_settings)
        checks.register(ours.check_database)
        checks.register(ours.check_autocommit)
        checks.register(ours.check_expiry)
        checks.register(ours.check_aliases)
        checks.register(ours.check_tenants)
        checks.register(ours.check_mirror)
        checks.register(ours.check_middleware)
        checks.register(view_checks.check_views)
        checks.register(server_checks.check_server, checks.Tags.database)
        checks.register(server_checks.check_schemas, checks.Tags.database)
        checks.register(server_checks.check_purge, checks.Tags.database)

        if apps.is_installed("drf_spectacular"):
            from . import openapi  # noqa: F401, PLC0415  # importing it registers it

        signals.answered.connect(logs.record)
        signals.answered.connect(tally.count)
        request_finished.connect(tally.flush_when_due)
        atexit.register(tally.flush)
        if _has_opentelemetry():
            from . import telemetry  # noqa: PLC0415

            signals.answered.connect(telemetry.measure)
            signals.answered.connect(telemetry.mark_span)
            signals.current_trace = telemetry.current_trace


def _has_opentelemetry() -> bool:
    """Tell whether there is an API of OpenTelemetry, and one that `telemetry` can use."""
    try:
        return get_version_tuple(metadata.version("opentelemetry-api")) >= (1, 30)
    except metadata.PackageNotFoundError:
        return False
