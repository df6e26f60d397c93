"""One view, bare, with this app and with its peers: ``python -m benchmarks.speed --help``.

``peers`` says what is compared. ``project/paying`` is the project that each serves, and ``served``
starts it. ``load`` measures through HTTP and ``process`` without, ``ratios`` puts what was measured
into proportion.

``python -m benchmarks.speed.link`` puts the database far away: ``proxy`` is the link.
``python -m benchmarks.speed.growth`` compares tables of several sizes, each in one of ``copies`` of
the database, and ``wal`` tells what was written for which part.
"""
