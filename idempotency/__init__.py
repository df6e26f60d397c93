"""Makes API requests safe to retry. This is the tour; the promise comes first.

A client sends ``Idempotency-Key: "8e03978e…"``. The view's database work and its stored answer
commit in **one** PostgreSQL transaction, so that a retry is told what the first request was told,
byte for byte, and nothing happens twice:

    A committed *claim* says somebody tried. The *row lock* says somebody is trying now. A
    *completed* row was committed together with the effects it answers for, or not at all.

There is no lease, no heartbeat and no clean-up of crashed requests: a worker that dies loses its
connection, the connection loses the lock, and the next retry takes it.

A first request takes nine steps; ``flow.py`` reads in their order:

1.  Parse the key, out of the header or a form's field (``http.py``, ``forms.py``).
2.  Find the caller's scope and the request's fingerprint (``http.py``, ``tenants.py``,
    ``fingerprints.py``). A body that has not arrived as a whole is refused (``bodies.py``).
3.  Look for the row: a completed one is replayed, another fingerprint is refused with 422
    (``claims.py``, from here to the end).
4.  Claim a key that nobody has: insert its row and commit it by itself;
5.  in the same round trip begin the business transaction and lock the row. Whoever finds it locked
    answers 409.
6.  What the row says under the lock counts: it may have been answered since step 3.
7.  Run the view and render its response.
8.  Save the answer in the row;
9.  and, in the same round trip, COMMIT: effects and answer together.

However a request ends, its outcome is told when the transaction is over (``signals.py``).

The rooms, each importing only from the lines below its own:

======== ====================================================================
wiring   ``apps``; beside it ``test``, for the tests of projects
start-up ``checks``, ``view_checks`` and ``server_checks``; ``doors`` for them
doors    ``decorators``, ``drf`` with ``browsable``; ``views`` behind ``urls``;
         ``templatetags.idempotency`` in templates; ``openapi``;
         ``tasks``, ``purge_idempotency_keys``, ``schedule_idempotency_purge``
admin    ``keys``; ``changelist``, ``dashboard``, ``display``, ``evicting``,
         ``export``; under them ``wording``
ears     ``logs``, ``tally``, ``telemetry``, which hear of every outcome
words    ``operations``, what OpenAPI says of the doors
flow     ``flow``, which every door shares; above it ``async_views``
options  ``options``, what one view asks of its door
heart    ``claims`` and ``tenants``; for the admin, ``activity``; under all
         ``database``
row      ``models``; under it ``digests``, its primary key, ``purges`` and
         ``records``; under all ``statements``, the SQL
wire     ``http``, ``bodies``, ``fingerprints``, ``answers``, ``problems``;
         for the admin, ``preview``
field    ``forms``
floor    ``exceptions``, ``conf``
ground   ``signals``, which tell the outcomes
======== ====================================================================

Read ``decorators.py``, ``flow.py``, ``claims.py`` and ``models.py`` in this order: five minutes,
and you know it all.
"""

__version__ = "0.1.0"
