"""Traces of requests by FastAPI's own telemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set; elsewhere it is off."""

from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig

from service.api.middleware.access_log import QUIET
from workers import tracing


def telemetry() -> TelemetryConfig:
    """One span for each request, named by its route, within the caller's trace where the caller has one.

    FastAPI's metrics and logs stay off, as /metrics and the log have theirs, and so do its spans within a request: what
    is stored or started meanwhile belongs to the request's span itself.
    """
    provider = tracing.provider("api")
    return TelemetryConfig(
        tracer_provider=provider,
        tracing=provider is not None,
        metrics=False,
        logs=False,
        operation_spans=False,
        auto_configure=False,
        exclude=_is_left_out,
    )


def _is_left_out(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is a probe, or a stream: a span of hours, that is an error as soon as its viewer leaves."""
    path = str(scope["path"])
    return path in QUIET or path.endswith("/stream")
