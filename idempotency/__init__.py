"""Makes API requests safe to retry. This is the tour; the promise comes first.

A client sends ``Idempotency-Key: "8e03978e…"``. The view's database work and its stored answer
commit in **one** PostgreSQL transaction, so that a retry is told what the first request was told,
byte for byte, and nothing happens twice:

    A committed *claim* says somebody tried. The *row lock* says somebody is trying now. A
    *completed* row was committed together with the effects it answers for, or not at all.

There is no lease, no heartbeat and no clean-up of crashed requests: a worker that dies loses its
connection, the connection loses the lock, and the next retry takes it.

A first request takes nine steps; ``flow.py`` reads in their order:

1.  Parse the key (``http.py``).
2.  Find the caller's scope and the request's fingerprint (``http.py``, ``fingerprints.py``).
3.  Claim: insert the row and commit it by itself (``claims.py``, from here to the end).
4.  A completed row is replayed; another fingerprint is refused with 422.
5.  Open the business transaction and lock the row; whoever finds it locked answers 409.
6.  The lock comes with a look at the row: it must still be this attempt's.
7.  Run the view and render its response.
8.  Save the answer in the row;
9.  and, in the same round trip, COMMIT: effects and answer together.

The rooms, each importing only from the lines below its own:

======== ====================================================================
doors    ``decorators``, ``drf``; ``views`` behind ``urls``; ``checks`` by ``apps``
admin    ``keys``; ``changelist``, ``dashboard``, ``export``; ``display``
flow     ``flow``, which every door shares
heart    ``claims``; for the admin, ``activity``
row      ``models``, ``statements``
wire     ``http``, ``fingerprints``; for the admin, ``preview``
floor    ``exceptions``, ``conf``
======== ====================================================================

Read ``decorators.py``, ``flow.py``, ``claims.py`` and ``models.py`` in this order: five minutes,
and you know it all.
"""

__version__ = "0.1.0"
