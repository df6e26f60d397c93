"""WSGI entry point: ``gunicorn testproject.wsgi``."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")

# The admin's style sheets come from here too: a real shop would leave them to its web server.
application = StaticFilesHandler(get_wsgi_application())
