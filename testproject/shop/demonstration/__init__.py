"""What ``python manage.py demo`` shows: real requests to a real server, and what they did.

``server`` runs gunicorn, ``storefront`` is where customers pay and look at what that did,
``scenes`` are what they try, and ``printing`` tells how it went.
"""
