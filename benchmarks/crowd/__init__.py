"""Ten thousand clients at once: ``python -m benchmarks.crowd --help``.

The shop under gunicorn behind nginx (``deploy/nginx.conf``), with k9 for the clients, and in the
end a look into the database. ``gateway`` starts and ends the servers, ``load`` says what the
clients do.
"""
