#!/usr/bin/env python
"""The shop's command line: ``python manage.py demo`` is a good start."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise SystemExit(
            f"{error}. Install what the shop needs: python -m pip install -e '.[demo]'"
        ) from error
    execute_from_command_line(sys.argv)
