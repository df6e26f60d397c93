"""One project, whatever is to be measured: a payment is an insert through a serializer, and 201.

It runs in virtual environments that know nothing of the benchmark, so it imports nothing of it.
``SPEED_VARIANT`` names one of `wirings`, ``DATABASE_URL`` the database and ``SPEED_SCHEMA`` the
schema in which the variant has tables of its own; ``SPEED_OPTIONS``, in JSON, is what else is to
stand in the database's ``OPTIONS``.
"""
