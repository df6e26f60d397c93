"""The settings: one typed, late-bound object over ``settings.IDEMPOTENCY``, each default argued.

The only room that reads ``django.conf.settings``. Values are looked up at the moment of use, so
``override_settings`` works, and a value that cannot be right is refused where it is read.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.module_loading import import_string

Resolver = Callable[[HttpRequest], str | None]
"""Tells from a request who is calling (or for which tenant); None or "" where it cannot."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110, section 9.2.1: methods that have no effect which a retry could repeat."""


class Settings:
    """What ``settings.IDEMPOTENCY``, a dict, may hold: these attributes, with their defaults."""

    METHODS: Collection[str] = ("POST", "PATCH")
    """HTTP methods that honour a key. PUT and DELETE are idempotent already (RFC 9110, 9.2.2)."""

    TTL: timedelta = timedelta(hours=24)
    """How long a key and its answer live. A day outlasts a night's outage and a client's queue."""

    MAX_WAIT: float = 5.0
    """Most seconds a concurrent request may wait for the first one (``Prefer: wait``, ``wait=``).

    A waiter holds a thread and a connection: longer than a client is patient helps nobody.
    """

    MAX_BODY_BYTES: int = 2**20
    """Largest response body that is kept, in bytes. Answers of APIs are kilobytes; what is larger
    is a download, better fetched again with GET than stored with every key."""

    MAX_KEYS_PER_SCOPE: int | None = None
    """How many keys a scope may have that have not expired. One more is refused with 429.

    All callers share one table: a client with a fresh key for each of a million requests, by
    mistake or malice, fills it for everybody. None by default, because the right number depends on
    what a caller sends in a ``TTL``, and one that is too low refuses honest requests.
    """

    STRICT: bool = False
    """Whether to accept the draft's quoted string only. Most clients in the field send it bare."""

    TENANT: Resolver | str | None = None
    """Resolver, or the dotted path of one, whose answer goes in front of every scope.

    Needed only where the same user may act for several tenants.
    """

    def __getattribute__(self, name: str) -> Any:
        default = super().__getattribute__(name)
        if not name.isupper():
            return default
        try:
            value = _overrides()[name]
        except KeyError:
            return default
        try:
            return check(name, value)
        except ValueError as error:
            raise ImproperlyConfigured(f"IDEMPOTENCY[{name!r}] {error}") from None


settings = Settings()


def check(name: str, value: Any) -> Any:
    """Give back a value that can be right for the setting ``name``.

    Raises:
        ValueError: It cannot; the message goes on where "IDEMPOTENCY['TTL'] " ends.
    """
    is_right, sentence = _RULES[name]
    if not is_right(value):
        raise ValueError(f"{sentence}, not {value!r}.")
    return value


def problems() -> Iterator[str]:
    """Say what is wrong with ``settings.IDEMPOTENCY``, a sentence each."""
    try:
        overrides = _overrides()
    except ImproperlyConfigured as error:
        yield str(error)
        return
    for name in overrides:
        if name not in _RULES:
            yield f"IDEMPOTENCY[{name!r}] is unknown. Known are {', '.join(sorted(_RULES))}."
            continue
        try:
            getattr(settings, name)
        except ImproperlyConfigured as error:
            yield str(error)


def in_words(span: timedelta) -> str:
    """Say exactly how long a span is, for clients to read: ``24 hours``, ``90 minutes``."""
    seconds = span.total_seconds()
    units = {"hour": 3600, "minute": 60, "second": 1}
    unit = next((unit for unit, length in units.items() if seconds % length == 0), "second")
    count = seconds / units[unit]
    return f"{count:.9g} {unit}{'' if count == 1 else 's'}"


def of_project(name: str, default: Any) -> Any:
    """Give a setting that is Django's or another app's."""
    return getattr(django_settings, name, default)


def secrets() -> list[str | bytes]:
    """Give the secrets of fingerprints: ``SECRET_KEY`` to write with, its fallbacks to read."""
    return [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Give what Celery's beat is told in the settings, by the name that Celery's manual uses."""
    return of_project("CELERY_BEAT_SCHEDULE", None) or {}


def tenant() -> Resolver | None:
    """Give the resolver of the setting ``TENANT``."""
    return resolver(settings.TENANT) if settings.TENANT else None


def resolver(value: Resolver | str) -> Resolver:
    """Import a resolver that is given as a dotted path."""
    if callable(value):
        return value
    resolve: Resolver = import_string(value)
    return resolve


def _overrides() -> dict[str, Any]:
    overrides = getattr(django_settings, "IDEMPOTENCY", {})
    if not isinstance(overrides, dict):
        raise ImproperlyConfigured(f"IDEMPOTENCY must be a dict, not {overrides!r}.")
    return overrides


def _is_methods(value: Any) -> bool:
    return (
        isinstance(value, list | tuple | set | frozenset)
        and all(isinstance(method, str) and method.isupper() for method in value)
        and not SAFE_METHODS & set(value)
    )


def _is_number(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_resolver(value: Any) -> bool:
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError:
            return False
    return value is None or callable(value)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "METHODS": (_is_methods, "must be a list of unsafe HTTP methods in capitals"),
    "TTL": (
        lambda value: isinstance(value, timedelta) and timedelta(0) < value < timedelta(3660),
        "must be a positive datetime.timedelta of less than ten years",
    ),
    "MAX_WAIT": (
        lambda value: _is_number(value, 3600),
        "must be a number of seconds, from 0 to an hour of them",
    ),
    "MAX_BODY_BYTES": (
        lambda value: _is_count(value) and value <= 2**30,
        "must be a whole number of bytes, from 0 to the gigabyte that PostgreSQL takes",
    ),
    "MAX_KEYS_PER_SCOPE": (
        lambda value: value is None or (_is_count(value) and value >= 1),
        "must be a whole number of keys, at least 1, or None for any number",
    ),
    "STRICT": (lambda value: isinstance(value, bool), "must be True or False"),
    "TENANT": (_is_resolver, "must be a callable that takes a request, or its dotted path"),
}
