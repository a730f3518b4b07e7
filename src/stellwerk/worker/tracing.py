"""A span for each attempt, where the extra `otel` is installed; without it nothing of OpenTelemetry is imported.

Spans belong to the trace that the run was asked for in, and go where the environment of OpenTelemetry says
(`OTEL_EXPORTER_OTLP_ENDPOINT`); a provider that somebody has set up in this process goes before that.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from stellwerk.logs import about

if TYPE_CHECKING:
    from stellwerk.worker.attempts import Attempt

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Span(Protocol):
    """What becomes of an attempt, for the trace."""

    traceparent: str | None
    """What calls to the outside name as their parent."""

    def fail(self, error_class: str) -> None:
        """The attempt ended in an error of this class."""


class Tracing(Protocol):
    """How attempts are traced in this process."""

    def attempt(self, attempt: Attempt) -> Any:
        """A context manager that gives a `Span` for as long as the attempt takes."""

    def end(self) -> None:
        """Send what has not been sent."""


class _Passed:
    """No span of our own: what is called hears of the run's trace itself. A context manager, as quick as can be."""

    __slots__ = ("_lines", "traceparent")

    def __init__(self, attempt: Attempt) -> None:
        self.traceparent = attempt.traceparent
        self._lines = _about(attempt, attempt.traceparent)

    def __enter__(self) -> Span:
        self._lines.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.__exit__()

    def fail(self, error_class: str) -> None:
        """Nobody is told."""


class PassOn:
    """Without OpenTelemetry: the run's trace is handed on as it is."""

    def attempt(self, attempt: Attempt) -> _Passed:
        """Nothing is measured."""
        return _Passed(attempt)

    def end(self) -> None:
        """There is nothing to send."""


class _Measured:
    def __init__(self, span: Any, traceparent: str | None) -> None:
        self._span = span
        self.traceparent = traceparent

    def fail(self, error_class: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", error_class)
        self._span.set_status(Status(StatusCode.ERROR, error_class))


class OpenTelemetry:
    """Spans of the SDK."""

    def __init__(self, provider: Any = None) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._ours = None
        if provider is None and (provider := _given_provider()) is None:
            provider = self._ours = _provider_of_environment()
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("stellwerk.worker")

    @contextmanager
    def attempt(self, attempt: Attempt) -> Iterator[Span]:
        """The span is the current one meanwhile, so that what an executor's libraries measure hangs below it."""
        parent = self._propagator.extract({"traceparent": attempt.traceparent or ""})
        with self._tracer.start_as_current_span(
            f"{attempt.node_type} {attempt.node_id}",
            context=parent,
            kind=self._trace.SpanKind.CONSUMER,
            record_exception=False,  # its text may hold anything
            set_status_on_exception=False,
            attributes={
                "stellwerk.tenant": attempt.tenant,
                "stellwerk.workflow": attempt.workflow,
                "stellwerk.run_id": str(attempt.run_id),
                "stellwerk.step_id": str(attempt.step_id),
                "stellwerk.node_id": attempt.node_id,
                "stellwerk.type": attempt.node_type,
                "stellwerk.attempt": attempt.attempt,
            },
        ) as span:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            traceparent = carrier.get("traceparent")
            with _about(attempt, traceparent):
                yield _Measured(span, traceparent)

    def end(self) -> None:
        """A provider of somebody else is ended by whoever set it up."""
        if self._ours is not None:
            self._ours.shutdown()


def set_up() -> Tracing:
    """Spans where the environment says where to send them, or a provider was set up in this process; else none."""
    if not any(os.environ.get(name) for name in ENDPOINTS) and _given_provider() is None:
        return PassOn()
    try:
        return OpenTelemetry()
    except ImportError as error:
        log.warning("no spans are sent: %s is missing, which pip install 'stellwerk[otel]' brings", error.name)
        return PassOn()


def _given_provider() -> Any:
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None  # nobody can have set one up
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def _provider_of_environment() -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = importlib.import_module(EXPORTER)
    name = os.environ.get("OTEL_SERVICE_NAME", "stellwerk-worker")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter.OTLPSpanExporter()))
    return provider


def _about(attempt: Attempt, traceparent: str | None) -> about:
    return about(**attempt.fields, trace_id=traceparent.split("-")[1] if traceparent else None)
