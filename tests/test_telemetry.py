"""Metrics and traces, as a real Prometheus and a real exporter of spans get them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata

import httpx
import pytest
from conftest import MakeDoor
from django.http import HttpRequest, HttpResponse
from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families
from support import (
    CHECKOUT,
    DEADLINE,
    Gate,
    database_url,
    eventually,
    free_port,
    threads,
    waiting_for_a_lock,
)
from test_decorators import Refused, created, refuse
from test_signals import breaking, raise_error

from idempotency import apps
from idempotency.models import IdempotencyKey

Samples = dict[tuple[str, ...], float]
"""Values by name, outcome, operation and, of a bucket, its upper bound."""


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    """Set OpenTelemetry up as a project would: for the whole process, once."""
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()], shutdown_on_exit=False))
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    return spans


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Callable[[], tuple[ReadableSpan, ...]]:
    """Give what is exported from here on."""
    exporter.clear()
    return exporter.get_finished_spans


@pytest.fixture(scope="module")
def scrape(exporter: InMemorySpanExporter) -> Iterator[Callable[[], Samples]]:
    """Serve the metrics, and read what there is of ours as Prometheus would."""
    port = free_port()
    server, thread = start_http_server(port, addr="127.0.0.1")

    def read() -> Samples:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        return {
            (sample.name, *sorted(ours(sample.labels).values())): sample.value
            for family in text_string_to_metric_families(page)
            if family.name.startswith("idempotency_")
            for sample in family.samples
        }

    def ours(labels: dict[str, str]) -> dict[str, str]:
        return {name: v for name, v in labels.items() if not name.startswith("otel_scope")}

    yield read
    server.shutdown()
    server.server_close()
    thread.join()


def rise(before: Samples, after: Samples) -> Samples:
    """Give what has been added."""
    return {
        at: value - before.get(at, 0) for at, value in after.items() if value > before.get(at, 0)
    }


def test_prometheus_counts_the_outcomes(make_door: MakeDoor, scrape: Callable[[], Samples]) -> None:
    """By outcome and operation, on every door."""
    before = scrape()
    door = make_door(breaking(raise_error))
    door(1), door(1), door(1), door(1), door(2)

    found = rise(before, scrape())

    by_outcome = {"failed": 1, "executed": 1, "replayed": 2, "key_reused": 1}
    for outcome, number in by_outcome.items():
        assert found["idempotency_requests_total", "POST work/", outcome] == number
        assert found["idempotency_overhead_duration_seconds_count", "POST work/", outcome] == number
        assert 0 < found["idempotency_overhead_duration_seconds_sum", "POST work/", outcome] < 5
    assert {at[1:] for at in found if at[0] == "idempotency_requests_total"} == {
        ("POST work/", outcome) for outcome in by_outcome
    }
    assert not any("wait" in at[0] for at in found)


def test_prometheus_sees_how_long_requests_waited(
    make_function_door: MakeDoor, scrape: Callable[[], Samples]
) -> None:
    """Only those that did, in buckets of seconds."""
    gate = Gate()

    def work(request: HttpRequest) -> HttpResponse:
        gate.wait()
        return created(request)

    before = scrape()
    door = make_function_door(work)
    with threads() as start:
        first = start(door)
        assert gate.reached()
        retry = start(door, Prefer="wait=5")
        eventually(waiting_for_a_lock)
        gate.open()
        assert first.result().content == retry.result().content

    found = rise(before, scrape())
    name = "idempotency_wait_duration_seconds"
    assert found[f"{name}_count", "POST work/", "replayed"] == 1
    assert 0.05 < found[f"{name}_sum", "POST work/", "replayed"] < DEADLINE
    assert found[f"{name}_bucket", "10.0", "POST work/", "replayed"] == 1
    assert (f"{name}_bucket", "0.005", "POST work/", "replayed") not in found
    assert (f"{name}_count", "POST work/", "executed") not in found


def test_labels_hold_nothing_that_a_caller_could_make_up(
    make_function_door: MakeDoor, scrape: Callable[[], Samples]
) -> None:
    """Keys, scopes, queries and paths would make series without end."""
    before = scrape()
    door = make_function_door(created, scope=lambda request: f"partner:{request.GET['n']}")
    for number in range(5):
        door.key, door.path = f"key-{number}", f"/work/?n={number}"
        door()

    found = rise(before, scrape())

    assert found["idempotency_requests_total", "POST work/", "executed"] == 5
    labels = {label for at in found for label in at[1:]}
    assert {label for label in labels if not label[0].isdigit()} == {
        "POST work/",
        "executed",
        "+Inf",
    }


def test_a_replay_links_to_the_first_requests_trace(
    make_door: MakeDoor, spans: Callable[[], tuple[ReadableSpan, ...]]
) -> None:
    """From the retry's span one click leads to the run whose answer it was given."""
    door = make_door(breaking(raise_error))
    tracer = trace.get_tracer("test")
    for name in ("failed", "first", "retry"):
        with tracer.start_as_current_span(name):
            door()

    failed, first, retry = spans()
    assert [span.name for span in (failed, first, retry)] == ["failed", "first", "retry"]
    assert (failed.links, first.links) == ((), ())
    (link,) = retry.links
    assert (link.context.trace_id, link.context.span_id) == (
        first.context.trace_id,
        first.context.span_id,
    )
    assert link.context.is_remote
    assert link.context.trace_flags.sampled
    assert dict(link.attributes or {}) == {"idempotency.link": "first_request"}


def test_a_span_has_an_event_for_the_outcome(
    make_door: MakeDoor, spans: Callable[[], tuple[ReadableSpan, ...]]
) -> None:
    """With the attempt, where there was one, and the time it waited."""
    door = make_door(created)
    with trace.get_tracer("test").start_as_current_span("request"):
        door(), door()

    (span,) = spans()
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    base = {"idempotency.wait": 0.0}
    assert events == [
        (
            "idempotency.answered",
            base | {"idempotency.outcome": "executed", "idempotency.attempt": 1},
        ),
        ("idempotency.answered", base | {"idempotency.outcome": "replayed"}),
    ]


def test_an_answer_kept_after_a_rollback_has_its_trace_too(
    make_door: MakeDoor, spans: Callable[[], tuple[ReadableSpan, ...]]
) -> None:
    """A refusal that was raised is replayed as any answer is."""

    def work(request: HttpRequest) -> HttpResponse:
        raise Refused(402)

    door = make_door(work, exception_handler=refuse)
    for name in ("first", "retry"):
        with trace.get_tracer("test").start_as_current_span(name):
            door()

    first, retry = spans()
    assert retry.links[0].context.trace_id == first.context.trace_id


def test_the_row_keeps_24_bytes_of_a_trace_and_none_without_one(make_door: MakeDoor) -> None:
    """Trace id and span id, as W3C Trace Context has them; a new life of the key forgets them."""
    door = make_door(created)
    door()
    assert bytes(IdempotencyKey.objects.get().trace) == b""

    door.key = "another"
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with use_span(NonRecordingSpan(context)):
        door()
    row = IdempotencyKey.objects.get(key="another")
    assert bytes(row.trace).hex() == f"{0xABC:032x}{0xDEF:016x}"

    IdempotencyKey.objects.update(created_at="2020-01-01T00:00Z", expires_at="2020-01-02T00:00Z")
    door()
    assert bytes(IdempotencyKey.objects.get(key="another").trace) == b""


def test_a_trace_that_nobody_records_is_not_kept(make_function_door: MakeDoor) -> None:
    """A link to it would lead nowhere."""
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(0))
    with use_span(NonRecordingSpan(context)):
        make_function_door(created)()

    assert bytes(IdempotencyKey.objects.get().trace) == b""


@pytest.mark.parametrize(
    ("version", "is_used"), [("1.29.0", False), ("1.30.0", True), ("2.0", True)]
)
def test_an_older_api_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, version: str, is_used: bool
) -> None:
    """It may be there for something else, and must not keep the site from starting."""
    monkeypatch.setattr(metadata, "version", lambda name: version)

    assert apps._has_opentelemetry() is is_used


WITHOUT = """
import sys
from importlib import metadata

import django


def find(name, found=metadata.version):
    if name == "opentelemetry-api":
        raise metadata.PackageNotFoundError(name)
    return found(name)


metadata.version = find
sys.modules["opentelemetry"] = None  # who imports it gets an ImportError
django.setup()

from idempotency import decorators, drf, signals

assert signals.current_trace() == b""
with signals.reporting(None, "POST /"):
    pass
"""


@pytest.mark.slow
def test_it_works_without_opentelemetry() -> None:
    """It is an extra: nothing but one room imports it."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
    }
    subprocess.run([sys.executable, "-c", WITHOUT], cwd=CHECKOUT, env=environment, check=True)
