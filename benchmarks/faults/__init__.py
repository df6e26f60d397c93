"""Whether the promise holds under faults: ``python -m benchmarks.faults --help``.

A real shop under gunicorn, on a PostgreSQL of its own, with a proxy between the two that stops
requests at a statement; clients that retry, and write down what they were told; and a checker that
compares that with the database.

``rounds`` brings all together, and ``records`` keeps and prints what came of it.

``ledger`` is what the clients write, ``clients`` send and retry, ``checker`` compares.
``proxy`` stops requests, and ``matrix`` lists the faults that strike them there.
``world`` is all that runs: ``server`` is one PostgreSQL, ``replication`` gives it a standby,
``bouncer`` is PgBouncer, ``serving`` configures gunicorn, and ``clock`` puts its workers' clocks
off. ``processes`` starts them. ``observer`` asks PostgreSQL, whatever happens to it. ``sabotage``
breaks the promise on purpose, to see that the checker notices.
"""
