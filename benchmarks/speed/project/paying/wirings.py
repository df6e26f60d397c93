"""How each variant is put around the view, with the best configuration its authors document.

What a package asks for goes where it asks for it: apps, middleware, settings, the view's class or
its handler, the WSGI application. Nothing of it is imported before the variant is known.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

Wrap = Callable[[Any], Any]


def _in_transaction(base: Any) -> Any:
    """Let the class's handler be one transaction, as it would be without any package."""
    from django.db import transaction  # noqa: PLC0415

    class InTransaction(base):  # type: ignore[misc]
        post = transaction.atomic(base.post)

    return InTransaction


def _view(base: Any) -> Any:
    return _in_transaction(base).as_view()


@dataclass(frozen=True)
class Wiring:
    """What a variant adds to the project."""

    apps: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Middleware that goes before all other."""
    middleware: tuple[str, ...] = ()
    """Middleware that goes after all other."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    view: Wrap = _view
    """Makes the view of its class."""
    prepare: Callable[[], None] = lambda: None
    """Makes what migrations do not."""


def _mixed_in(mixin: Callable[[], Any]) -> Wrap:
    """Put a mixin, imported late, before the view whose handler is a transaction."""

    def view(base: Any) -> Any:
        mixed: Any = type("MixedIn", (mixin(), _in_transaction(base)), {})
        return mixed.as_view()

    return view


def _ours() -> Wiring:
    def view(base: Any) -> Any:
        from idempotency.drf import IdempotencyMixin  # noqa: PLC0415

        mixed: Any = type("OurView", (IdempotencyMixin, base), {})
        return mixed.as_view()  # the mixin opens the transaction

    return Wiring(apps=("idempotency",), view=view)


def _drf_idempotency(backend: str, **options: str) -> Wiring:
    # Its decorator renders the framework's responses too early: 500. So the middleware.
    return Wiring(
        apps=("drf_idempotency",),
        middleware=("drf_idempotency.middleware.IdempotencyMiddleware",),
        settings={
            "IDEMPOTENCY": {
                "BACKEND": f"drf_idempotency.backends.{backend}",
                "BACKEND_OPTIONS": options,
            }
        },
    )


def _djangorestframework_idempotency_key() -> Wiring:
    def view(base: Any) -> Any:
        from rest_framework_idempotency_key.decorators import (  # noqa: PLC0415
            simple_idempotency_key_method,
        )

        class SimpleView(base):  # type: ignore[misc]
            post = simple_idempotency_key_method(base.post)  # it opens the transaction

        return SimpleView.as_view()

    return Wiring(
        apps=("rest_framework_idempotency_key",),
        middleware=("rest_framework_idempotency_key.middleware.IdempotencyKeyMiddleware",),
        settings={"IDEMPOTENCY_KEY_LOCK_TIMEOUT": 30},  # it has no default: as the others'
        view=view,
    )


def _drf_idempotencykey() -> Wiring:
    def mixin() -> Any:
        from drf_idempotencykey.mixins import DrfIdempotencyKeyMixin  # noqa: PLC0415

        return DrfIdempotencyKeyMixin

    return Wiring(apps=("drf_idempotencykey",), view=_mixed_in(mixin))


def _idemkit(make_backend: Callable[[], Any], prepare: Callable[[], None]) -> Wiring:
    def mixin() -> Any:
        from idemkit import HttpConfig  # noqa: PLC0415
        from idemkit.contrib.drf import idempotent_view  # noqa: PLC0415

        config = HttpConfig(scope=lambda request: str(request.user.pk), scope_mode="strict")
        return idempotent_view(backend=make_backend(), config=config)

    return Wiring(view=_mixed_in(mixin), prepare=prepare)


def _idemkit_postgres() -> Wiring:
    def backend() -> Any:
        from idemkit import PostgresBackend  # noqa: PLC0415

        return PostgresBackend.from_url(_url())

    def prepare() -> None:
        from idemkit.cli import main  # noqa: PLC0415

        main(["init-pg", _url()])

    return _idemkit(backend, prepare)


def _idemkit_redis() -> Wiring:
    def backend() -> Any:
        from idemkit import RedisBackend  # noqa: PLC0415

        return RedisBackend.from_url(REDIS)

    return _idemkit(backend, lambda: None)


def _django_idempotency_key() -> Wiring:
    def view(base: Any) -> Any:
        from idempotency_key.decorators import idempotency_key  # noqa: PLC0415

        return idempotency_key(_view(base))

    return Wiring(
        middleware=("idempotency_key.middleware.ExemptIdempotencyKeyMiddleware",),
        settings={
            "CACHES": _caches("default"),
            "IDEMPOTENCY_KEY": {
                "CONFLICT_STATUS_CODE": None,  # let a replay be 201, too
                "STORAGE": {"CLASS": "idempotency_key.storage.CacheKeyStorage"},
                "LOCK": {
                    "CLASS": "idempotency_key.locks.redis.MultiProcessRedisLock",
                    "LOCATION": REDIS,
                    "TTL": 30,
                    "TIMEOUT": 5.0,  # with its 0.1 s some of two requests at once are 423
                },
            },
        },
        view=view,
    )


def _drf_idem() -> Wiring:
    return Wiring(
        apps=("drf_idem",),
        before=("drf_idem.middleware.IdempotencyMiddleware",),
        settings={
            "CACHES": _caches("drf_idem") | _caches("default"),
            "DRF_IDEM": {"HEADER": "HTTP_IDEMPOTENCY_KEY"},
        },
    )


def _caches(name: str) -> dict[str, Any]:
    backend = "django.core.cache.backends.redis.RedisCache"
    return {name: {"BACKEND": backend, "LOCATION": REDIS}}


def _url() -> str:
    """Give the database and the schema as the URL that asyncpg reads."""
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    known = conninfo_to_dict(os.environ["DATABASE_URL"])
    user, password, name = (quote(str(known.get(it, ""))) for it in ("user", "password", "dbname"))
    query = {"search_path": SCHEMA} | {it: str(known[it]) for it in ("host", "port") if it in known}
    return f"postgresql://{user}:{password}@/{name}?{urlencode(query)}"


REDIS = os.environ.get("SPEED_REDIS", "")
SCHEMA = os.environ["SPEED_SCHEMA"]

_WIRINGS: dict[str, Callable[[], Wiring]] = {
    "bare": Wiring,
    "ours": _ours,
    "drf-idempotency": partial(_drf_idempotency, "database.DatabaseBackend"),
    "djangorestframework-idempotency-key": _djangorestframework_idempotency_key,
    "drf-idempotencykey": _drf_idempotencykey,
    "idemkit": _idemkit_postgres,
    "drf-idempotency-redis": partial(_drf_idempotency, "redis.RedisBackend", url=REDIS),
    "idemkit-redis": _idemkit_redis,
    "django-idempotency-key-redis": _django_idempotency_key,
    "drf-idem-redis": _drf_idem,
}

wiring = _WIRINGS[os.environ["SPEED_VARIANT"]]()
