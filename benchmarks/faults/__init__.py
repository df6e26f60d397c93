"""Whether the promise holds under faults: ``python -m benchmarks.faults --help``.

A real shop under gunicorn, on a PostgreSQL of its own, with a proxy between the two that stops a
request at a statement; clients that retry, and write down what they were told; and a checker that
compares that with the database.

``ledger`` is what the clients write, ``clients`` send and retry, ``proxy`` stops requests,
``world`` starts and ends processes (``serving`` configures gunicorn),
``matrix`` lists the faults, ``checker`` compares, ``rounds`` brings all together. ``sabotage``
breaks the promise on purpose, to see that the checker notices.
"""
