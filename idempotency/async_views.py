"""Async views: run on the thread of their transaction, with the tasks they start.

A transaction lives on one thread, where asgiref also runs what an async view asks of the ORM.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import database
from .flow import Responder

AsyncResponder = Callable[[HttpRequest], Awaitable[HttpResponseBase]]
"""An async view whose other arguments are filled in already."""


class _Span:
    """The time in which an async view runs."""

    is_over = False


_span: ContextVar[_Span | None] = ContextVar("idempotency_span", default=None)
"""The span of the view that started the current task; it goes with the task wherever that goes."""


def enclosed(respond: AsyncResponder) -> Responder:
    """Let an async view, and the tasks it starts, use the database while it runs and no longer.

    A task that the view leaves behind would go on writing when the transaction has ended: what it
    writes then is not undone by a rollback, and is written again by a retry.
    """

    async def within_span(request: HttpRequest) -> HttpResponseBase:
        span = _Span()
        token = _span.set(span)
        try:
            return await respond(request)
        finally:
            span.is_over = True
            _span.reset(token)

    def run(request: HttpRequest) -> HttpResponseBase:
        wrappers = connections[database.alias()].execute_wrappers
        if _refuse_late_query not in wrappers:
            # Before all others: Django takes away the last one, whosever it is.
            wrappers.insert(0, _refuse_late_query)
        return async_to_sync(within_span)(request)

    return run


def _refuse_late_query(execute: Any, *query: Any) -> Any:
    span = _span.get()
    if span and span.is_over:
        raise RuntimeError(
            "A task uses the database after the idempotent view that started it has ended, and "
            "with it the transaction. Await every task that the view starts."
        )
    return execute(*query)
