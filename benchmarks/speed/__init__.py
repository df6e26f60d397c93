"""One view, bare, with this app and with its peers: ``python -m benchmarks.speed --help``.

``peers`` says what is compared. ``project/paying`` is the project that each serves, and ``served``
starts it. ``load`` measures through HTTP and ``process`` without, ``ratios`` puts what was measured
into proportion.
"""
