"""What ``startproject`` gives, without the admin and static files; and what the variant adds."""

import json
import os

from psycopg.conninfo import conninfo_to_dict

from .wirings import SCHEMA, wiring

SECRET_KEY = "nothing here is secret"  # noqa: S105
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "paying.views"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "rest_framework",
    "paying",
    *wiring.apps,
]

MIDDLEWARE = [
    *wiring.before,
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    *wiring.middleware,
]

_connection = conninfo_to_dict(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _connection.pop("dbname", ""),
        "USER": _connection.pop("user", ""),
        "PASSWORD": _connection.pop("password", ""),
        "HOST": _connection.pop("host", ""),
        "PORT": _connection.pop("port", ""),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            **_connection,
            "options": f"-csearch_path={SCHEMA}",
            **json.loads(os.environ.get("SPEED_OPTIONS", "{}")),
        },
    }
}

LOGGING_CONFIG = None

globals().update(wiring.settings)
