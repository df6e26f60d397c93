"""Settings of the project, with the keys in each tenant's schema or in the shared one."""

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict

_conninfo: dict[str, Any] = conninfo_to_dict(os.environ["DATABASE_URL"])

SECRET_KEY = "no secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tenancy.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TENANT_MODEL = "tenancy.Tenant"
TENANT_DOMAIN_MODEL = "tenancy.Domain"
SHARED_APPS = ["django_tenants", "tenancy", "django.contrib.contenttypes"]
TENANT_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
(TENANT_APPS if os.environ["KEYS"] == "own" else SHARED_APPS).append("idempotency")
INSTALLED_APPS = [*SHARED_APPS, *(app for app in TENANT_APPS if app not in SHARED_APPS)]

MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware", "tenancy.urls.authenticated"]
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "NAME": _conninfo["dbname"],
        "USER": _conninfo["user"],
        "PASSWORD": _conninfo.get("password", ""),
        "HOST": _conninfo["host"],
        "PORT": _conninfo["port"],
        "ATOMIC_REQUESTS": os.environ.get("ATOMIC") == "1",
    }
}
