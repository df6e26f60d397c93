"""Settings of the shop, used by manage.py, the demo and the tests."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from testproject import pgbouncer, postgres, variants

CHECKOUT = Path(__file__).resolve().parent.parent

SECRET_KEY = "the shop is an example: nothing in it is secret"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "testproject.urls"
WSGI_APPLICATION = "testproject.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"

EXTRAS = ["django_celery_beat", "rest_framework", "drf_spectacular", "drf_spectacular_sidecar"]
"""The shop does without what is not installed, as the package does."""

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *filter(find_spec, EXTRAS),
    "idempotency",
    "testproject.shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "testproject.shop.auth.header_authentication",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "checkout"
LOGOUT_REDIRECT_URL = "login"

# Somebody who clicks twice never gets the first response, and with it no cookie of messages.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# The passwords are printed by the demo, so a slow hash of them would only slow down the tests.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

STATIC_URL = "static/"

REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}

SPECTACULAR_SETTINGS = {
    "TITLE": "The shop",
    "DESCRIPTION": "Payments that are safe to retry.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    # The pages' scripts come from the wheel, so they work without a network.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_url = os.environ.get("DATABASE_URL") or postgres.database_url(CHECKOUT / ".postgres")
_conninfo: dict[str, Any] = conninfo_to_dict(
    _url
)  # libpq's own reading of the URL, options and all
POSTGRES = {name: _conninfo.get(name, "") for name in ("host", "port")}
"""Where PostgreSQL listens itself, whatever is before it."""

DATABASE_VARIANT = os.environ.get("DATABASE_VARIANT") or "default"
if DATABASE_VARIANT == variants.PGBOUNCER:
    _conninfo = pgbouncer.before(_conninfo)

_database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": _conninfo.pop("dbname", ""),
    "USER": _conninfo.pop("user", ""),
    "PASSWORD": _conninfo.pop("password", ""),
    "HOST": _conninfo.pop("host", ""),
    "PORT": _conninfo.pop("port", ""),
    "CONN_MAX_AGE": 60,
    "ATOMIC_REQUESTS": os.environ.get("SHOP_ATOMIC_REQUESTS") == "1",
    "TEST": {"NAME": "_".join(filter(None, ["test_shop", os.environ.get("TOX_ENV_NAME")]))},
    # The demo asks PostgreSQL which worker is in the middle of a payment.
    "OPTIONS": {**_conninfo, "application_name": f"shop-{os.getpid()}"},
}
DATABASES = {
    "default": variants.changed(
        _database, DATABASE_VARIANT, pooled=os.environ.get("SHOP_POOL") == "1"
    )
}

CELERY_BROKER_URL = os.environ.get("SHOP_BROKER", "redis://127.0.0.1:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    "purge-idempotency-keys": {
        "task": "idempotency.tasks.purge_expired_keys",
        "schedule": float(os.environ.get("SHOP_PURGE_EVERY", "600")),  # seconds
    },
}
