"""Own logs and metrics; the only importer of Prometheus' client."""

from __future__ import annotations

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = CONTENT_TYPE_LATEST

DURATION_BUCKETS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("service_requests", "Requests answered.", ["route", "status"], registry=self._registry)
        self.duration = Histogram(
            "service_request_duration_seconds",
            "From the request's head to the last byte of its answer.",
            ["route"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self.predictions = Counter(
            "service_predictions",
            "Images classified, by the most likely class.",
            ["class_name"],
            registry=self._registry,
        )

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class Measure:
    """Count and time every request, as pure ASGI. Unknown paths share one label, so that nobody can add labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.duration.labels(route).observe(time.perf_counter() - started)


def configure_logging(level: str) -> None:
    """Log to standard error, one line an event, with its time."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
