"""What the app costs, measured: ``python -m benchmarks.storage``, ``benchmarks.purge``, ``.admin``.

Each fills a database of its own, which it creates on the PostgreSQL of ``DATABASE_URL`` or on the
embedded one and drops at the end, and prints tables in Markdown. ``--rows 5000000`` gives the
figures of ``docs/storage.md`` and ``docs/admin.md``; the default size is for a try. Counts of bytes
and pages do not depend on what else the machine does; times do, so what is compared is measured in
turns within one run.

``speed`` compares requests with a key to those without, and this app to its peers.

``database`` makes the database, ``designs`` the layouts to compare, ``rows`` what is in them,
``traffic`` the live requests, and ``tables`` prints. ``overload`` measures what copies of a slow
request cost others. ``faults`` and ``fuzz`` are another matter: see there.
"""

import os
from importlib.util import find_spec

import django

if _missing := [name for name in ("gunicorn", "k9", "rich") if not find_spec(name)]:
    raise SystemExit(
        f"The benchmarks need {', '.join(_missing)}: python -m pip install -e '.[benchmark]'"
    )
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
django.setup()
