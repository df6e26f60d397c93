"""ASGI entry point: ``uvicorn testproject.asgi:application``."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
# Under ASGI every request has a thread of its own, so connections are kept in a pool instead.
os.environ.setdefault("SHOP_POOL", "1")

application = ASGIStaticFilesHandler(get_asgi_application())
