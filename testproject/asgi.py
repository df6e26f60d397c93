"""ASGI entry point: ``uvicorn testproject.asgi:application``."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
# Under ASGI every request has a thread of its own, which would keep a connection for nobody.
os.environ.setdefault("SHOP_CONN_MAX_AGE", "0")

application = get_asgi_application()
