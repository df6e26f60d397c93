"""Whether the promise holds under faults: ``python -m benchmarks.faults --help``.

A real shop under gunicorn, on a PostgreSQL of its own, with a proxy between the two that stops
requests at a statement; clients that retry, and write down what they were told; and a checker that
compares that with the database.

``rounds`` brings all together, and ``records`` keeps and prints what came of it. A round has
several ``lanes``, in which faults are injected, and a ``setting``.

``ledger`` is what the clients write, ``clients`` send and retry, ``checker`` compares. ``orders``
writes payments down, and ``uploads`` cuts them on their way to the shop.
``proxy`` stops requests, ``scene`` is what a fault finds there, and ``matrix`` lists the faults.
``world`` is all that runs: ``server`` is one PostgreSQL, ``replication`` gives it a standby,
``bouncer`` is PgBouncer, ``serving`` configures gunicorn, and ``clock`` puts its workers' clocks
off. ``processes`` starts them. ``observer`` asks PostgreSQL, whatever happens to it. ``sabotage``
breaks the promise on purpose, to see that the checker notices.
"""
