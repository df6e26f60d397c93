"""``python -m paying.tables``: creates the variant's tables."""

import django
from django.core.management import call_command

from .wirings import wiring

if __name__ == "__main__":
    django.setup()
    call_command("migrate")
    wiring.prepare()
