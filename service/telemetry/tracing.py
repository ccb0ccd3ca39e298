"""Own tracing: FastAPI makes a span of each request, this adds its steps. The only importer of OpenTelemetry."""

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
"""The environment variables, of OpenTelemetry's own, that name a collector; with none of them nothing is traced."""

DEFAULTS = {
    "OTEL_SERVICE_NAME": "fashion-classifier",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3",  # seconds, of 10: a collector that is gone holds up the end of this process
}
UNTRACED = ("/health", "/metrics")  # asked every few seconds by machines
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def configuration() -> TelemetryConfig:
    """Return what FastAPI shall trace: requests, to the collector that the environment names, if it names one.

    Raises:
        TracingError: It does, but what speaks to a collector is not installed.
    """
    named = [name for name in ENDPOINTS if os.environ.get(name)]
    if named:
        if importlib.util.find_spec("opentelemetry.sdk") is None:
            raise TracingError(
                f"{named[0]} is set, but what tracing takes is not installed: "
                "pip install 'fastapi[opentelemetry]', or unset it"
            )
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
    return {
        "auto_configure": True,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "exclude": lambda scope: scope.get("path", "").startswith(UNTRACED),
    }


def trace_id(scope: Scope) -> str | None:
    """Return the id of the trace that a request belongs to: its span's, else the one that its client sent."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        return trace.format_trace_id(context.trace_id)
    sent = TRACEPARENT.fullmatch(Headers(scope=scope).get("traceparent", ""))
    return sent[1] if sent else None


def trace_steps(durations: dict[str, float], attributes: Mapping[str, str | int]) -> None:
    """Give the request's span ``attributes``, and a child for each step; the last has ended now.

    ``durations`` are seconds by step. All that was waited for is one step, so it is drawn as one.
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
