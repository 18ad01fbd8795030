"""Traces for OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set; elsewhere nothing is imported and nothing done.

A trace goes from the request that submits an experiment, by way of its row and the dispatcher, to the first step on
every rank: what is handed on is a `traceparent` (W3C Trace Context, level 1). Spans are sent by a thread, over HTTP.
"""

import functools
import logging
import os
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

from workers.protocol.addresses import without_proxy_to_loopback

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

    from workers.protocol.assignment import Assignment

log = logging.getLogger(__name__)
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SEND_EVERY_MILLISECONDS = 1000  # a worker may be killed as soon as its experiment is over
Attribute = str | int | float | bool


def wanted() -> bool:
    """Whether somebody set an endpoint to send traces to."""
    return any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def record(
    name: str, process: str, *, parent: str | None, begin: datetime, end: datetime, **attributes: Attribute
) -> None:
    """A span whose beginning and end are known already. Does nothing for an experiment without a trace."""
    tracer = _tracer(process)
    if tracer is None or parent is None:
        return
    made = tracer.start_span(name, _context(parent), attributes=attributes, start_time=_nanoseconds(begin))
    made.end(_nanoseconds(end))


def event(name: str) -> None:
    """A moment within the current span."""
    if wanted():
        from opentelemetry import trace

        trace.get_current_span().add_event(name)


def annotate(**attributes: Attribute) -> None:
    """Set attributes of the current span."""
    if wanted():
        from opentelemetry import trace

        trace.get_current_span().set_attributes(attributes)


def exception(error: BaseException, *, redact: Callable[[str], str]) -> None:
    """Add an exception to the current span, with its message and traceback as `redact` leaves them."""
    if wanted():
        from opentelemetry import trace

        text = "".join(traceback.format_exception(error))
        shown = {"exception.message": redact(str(error)), "exception.stacktrace": redact(text)}
        trace.get_current_span().record_exception(error, attributes=shown)


def traceparent() -> str | None:
    """What hands the current span on to another process; None outside of any."""
    if not wanted():
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


class FirstStep:
    """The span from a rank's beginning to its first step. `end` may be called again: the first call counts."""

    def __init__(self, assignment: "Assignment") -> None:
        tracer = _tracer("worker")
        self._span: Any = None
        if tracer is not None:
            about: dict[str, Attribute] = {
                "cbam.experiment_id": assignment.experiment_id,
                "cbam.attempt": assignment.attempt,
                "cbam.rank": assignment.rank,
            }
            context = _context(assignment.traceparent)
            self._span = tracer.start_span("worker: to the first step", context, attributes=about)

    def current(self) -> "AbstractContextManager[Any]":
        """While this is open, events are the span's."""
        if self._span is None:
            return nullcontext()
        from opentelemetry.trace import use_span

        return use_span(self._span)

    def end(self, *, error: str = "") -> None:
        """The first step is done, or never will be, for this reason."""
        if self._span is not None:
            if error:
                from opentelemetry.trace import StatusCode

                self._span.set_status(StatusCode.ERROR, error)
            self._span.end()
            self._span = None


@functools.cache
def provider(process: str) -> "TracerProvider | None":
    """The provider of this process's spans, made at its first use, as it takes a connection and a thread.

    None where no traces are wanted, or OpenTelemetry's SDK is not installed.
    """
    if not wanted():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("an OTLP endpoint is set, and no traces are sent: pip install cbam-lab[otel]")
        return None
    from workers.query_filter import WithoutQuery

    os.environ.update(without_proxy_to_loopback(os.environ))
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": f"cbam-{process}"}
    made = TracerProvider(resource=Resource.create(named))
    made.sampler = WithoutQuery(made.sampler)  # around the one that OTEL_TRACES_SAMPLER names
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=SEND_EVERY_MILLISECONDS))
    return made


def _tracer(process: str) -> "Tracer | None":
    found = provider(process)
    return None if found is None else found.get_tracer("cbam-lab")


def _context(parent: str | None) -> "Context | None":
    """The place in a trace that a `traceparent` names; the current one without it."""
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e9)
