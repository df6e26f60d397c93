"""Metrics and traces through the API of OpenTelemetry; an exporter is the project's choice.

Names and units follow its semantic conventions. The only room that imports ``opentelemetry``.
"""

from typing import Any

from opentelemetry import metrics, trace

from .signals import Outcome

_WAIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""What the conventions advise for the duration of HTTP requests."""

_OVERHEAD_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_meter = metrics.get_meter("idempotency")

_requests = _meter.create_counter(
    "idempotency.requests", unit="{request}", description="Requests covered by an idempotent view."
)
_wait = _meter.create_histogram(
    "idempotency.wait.duration",
    unit="s",
    description="Time that requests which waited for another one with their key spent on it.",
    explicit_bucket_boundaries_advisory=_WAIT_SECONDS,
)
_overhead = _meter.create_histogram(
    "idempotency.overhead.duration",
    unit="s",
    description="Time that requests spent on idempotency: all but waiting and the view.",
    explicit_bucket_boundaries_advisory=_OVERHEAD_SECONDS,
)


def measure(outcome: Outcome, operation: str, waited: float, overhead: float, **_told: Any) -> None:
    """Measure one request, as told by the signal ``answered``."""
    attributes = {"idempotency.outcome": outcome.value, "idempotency.operation": operation}
    _requests.add(1, attributes)
    _overhead.record(overhead, attributes)
    if waited:
        _wait.record(waited, attributes)


def mark_span(
    outcome: Outcome, attempt: int | None, waited: float, first_trace: bytes, **_told: Any
) -> None:
    """Tell the current span the outcome of its request, and link it to the first one's."""
    span = trace.get_current_span()
    event: dict[str, str | float] = {"idempotency.outcome": outcome.value}
    event["idempotency.wait"] = waited
    if attempt is not None:
        event["idempotency.attempt"] = attempt
    span.add_event("idempotency.answered", event)
    if first_trace:
        span.add_link(_context(first_trace), {"idempotency.link": "first_request"})


def current_trace() -> bytes:
    """Give trace and span id of the current span, where its trace is recorded.

    A link to a trace that was not sampled would lead nowhere.
    """
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return b""
    return context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big")


def _context(trace_and_span: bytes) -> trace.SpanContext:
    return trace.SpanContext(
        trace_id=int.from_bytes(trace_and_span[:16], "big"),
        span_id=int.from_bytes(trace_and_span[16:], "big"),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
