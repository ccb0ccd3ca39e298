"""Traces of requests; the only module that imports OpenTelemetry.

FastAPI makes one span for each request. This module adds a child span for each step.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Mapping

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from starlette.datastructures import Headers
from starlette.types import Scope

from service.errors import TracingError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's environment variables for the collector. Tracing is off if neither is set."""

DEFAULTS = {
    "OTEL_SERVICE_NAME": "fashion-classifier",
    # Seconds. OpenTelemetry's default, 10, would delay the exit if the collector is unreachable.
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
}
UNTRACED = ("/health", "/v2/health", "/metrics")  # requested every few seconds
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def configuration() -> TelemetryConfig:
    """Return FastAPI's tracing configuration. The environment names the collector.

    Raises:
        TracingError: The environment names a collector, but the packages are not installed.
    """
    named = [name for name in ENDPOINTS if os.environ.get(name)]
    if named:
        if importlib.util.find_spec("opentelemetry.sdk") is None:
            raise TracingError(
                f"{named[0]} is set, but the packages for tracing are not installed; "
                "run pip install 'fastapi[opentelemetry]' or unset the variable"
            )
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
    return {
        "tracing": bool(named),
        "auto_configure": True,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "exclude": lambda scope: scope.get("path", "").startswith(UNTRACED),
    }


def trace_id(scope: Scope) -> str | None:
    """Return a request's trace id: from its span, or else from its ``traceparent`` header."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        return trace.format_trace_id(context.trace_id)
    sent = TRACEPARENT.fullmatch(Headers(scope=scope).get("traceparent", ""))
    return sent[1] if sent else None


def trace_steps(durations: dict[str, float], attributes: Mapping[str, str | float]) -> None:
    """Add ``attributes`` to the request's span, and a child span for each step.

    ``durations`` holds the seconds of each step in order; the last step ends now. An image waits
    both before and after decoding. One span, ``queue``, shows the sum of both, after ``decode``.
    """
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attributes(attributes)
    tracer = trace.get_tracer("service")
    end = time.time_ns()
    for name, seconds in reversed(durations.items()):
        start = end - round(seconds * 1e9)
        tracer.start_span(name, start_time=start).end(end)
        end = start
