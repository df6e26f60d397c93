"""Whether the purge is fast enough, and whether anybody notices it.

``creation`` measures how fast the shop creates keys over HTTP, ``windows`` how live requests fare
with and without a purge, in turns.
"""
