"""Own logs and metrics: what is noted of every request, and how it is told. The only importer of Prometheus' client."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import sys
import time
from collections.abc import Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import TABLE, internal_error
from service.errors import ImageError
from service.inference.predictor import ImageAnswer, Predictor
from service.telemetry.tracing import trace_id, trace_steps

log = logging.getLogger(__name__)
access_log = logging.getLogger("service.access")

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Anything else could forge lines in the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_GONE = 499
MAX_PATH_CHARACTERS = 200  # of a request, in its line in the log
REASONS = (*(name for _, name in TABLE.values()), "internal-error")
STATE_SECONDS = 1.0  # how old the state of another worker may be

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BYTES = tuple(4**power for power in range(4, 13))
PIXELS = tuple(4**power for power in range(4, 14))
PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass
class Record:
    """What is noted of one request while it is answered; routes fill it in through ``request.state.record``."""

    upload_bytes: int | None = None
    answers: list[ImageAnswer] = field(default_factory=list)
    failures: list[ImageError] = field(default_factory=list)


class Metrics:
    """The metrics of one application, in a registry of their own; summed over workers where there are several."""

    def __init__(self, predictor: Predictor, folder: str | None = None) -> None:
        self._predictor = predictor
        self._folder = folder
        self._model: tuple[str, ...] | None = None
        self.requests_in_flight = 0
        self._registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as many series again, and several workers have none
        self.requests = self._counter("requests", "Requests answered.", "route", "status")
        self.rejections = self._counter(
            "rejections", "Requests refused, by the kind of problem.", "reason"
        )
        # A series that begins with its first event hides it from rate() and increase().
        for reason in REASONS:
            self.rejections.labels(reason)
        self.predictions = self._counter(
            "predictions", "Images classified, by the most likely class.", "class_name"
        )
        self.duration = self._histogram(
            "request_duration_seconds", "From a request to its answer.", SECONDS, "route"
        )
        self.decode = self._histogram("decode_seconds", "Decoding and fitting an image.", SECONDS)
        self.queue = self._histogram("queue_seconds", "Waiting for a thread or a batch.", SECONDS)
        self.inference = self._histogram(
            "inference_seconds", "The batch that an image was in.", SECONDS
        )
        self.batch_size = self._histogram(
            "batch_size", "Images in the batch that an image was in.", BATCH_SIZES
        )
        self.confidence = self._histogram(
            "confidence", "Probability of the most likely class.", PROBABILITIES
        )
        self.upload_bytes = self._histogram("upload_bytes", "Size of an upload.", BYTES)
        self.image_pixels = self._histogram("image_pixels", "Pixels of an upload's image.", PIXELS)
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered.", "livesum")
        self.queue_depth = self._gauge(
            "queue_depth", "Images that wait for a thread or a batch.", "livesum"
        )
        self.ready = self._gauge(
            "ready", "1 while the service takes traffic, with all its workers.", "livemin"
        )
        self.model = self._gauge(
            "model_info",
            "1 for the model that serves.",
            "livemax",
            "name",
            "version",
            "device",
            "provider",
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"service_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"service_{name}", text, labels, buckets=buckets, registry=self._registry)

    def _gauge(
        self, name: str, text: str, mode: Literal["livesum", "livemin", "livemax"], *labels: str
    ) -> Gauge:
        return Gauge(
            f"service_{name}", text, labels, multiprocess_mode=mode, registry=self._registry
        )

    def observe(
        self, route: str, status: int, problem: str | None, seconds: float, record: Record
    ) -> None:
        """Add one finished request."""
        self.requests.labels(route, status).inc()
        self.duration.labels(route).observe(seconds)
        if problem is not None:
            self.rejections.labels(problem).inc()
        if record.upload_bytes is not None:
            self.upload_bytes.observe(record.upload_bytes)
        for failure in record.failures:
            self.rejections.labels(TABLE[type(failure)][1]).inc()
        for answer in record.answers:
            self.predictions.labels(answer.classification.class_name).inc()
            self.confidence.observe(answer.classification.probability)
            self.image_pixels.observe(answer.source.source_pixels)
            self.batch_size.observe(answer.batch_size)
            self.decode.observe(answer.decode_seconds)
            self.queue.observe(answer.queue_seconds)
            self.inference.observe(answer.inference_seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._note_state()
        if self._folder is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    async def watch(self) -> None:
        """Note the state at intervals, for ever: with several workers another one may be asked for it."""
        while True:
            self._note_state()
            await asyncio.sleep(STATE_SECONDS)

    def _note_state(self) -> None:
        self.ready.set(self._predictor.model.status == "ready")
        self.in_flight.set(self.requests_in_flight)
        self.queue_depth.set(self._predictor.queue_depth)
        classifier = self._predictor.model.classifier
        if classifier is None:
            return
        manifest = classifier.manifest
        model = manifest.name, manifest.version, classifier.device, classifier.providers[0]
        if model == self._model:
            return
        if self._model is not None:
            self.model.labels(*self._model).set(0)
        self.model.labels(*model).set(1)
        for class_name in manifest.class_names:
            self.predictions.labels(class_name)
        self._model = model


class Observe:
    """Give each request an id, answer with it, and note the request in the metrics and the log when it is over.

    The id is the client's ``X-Request-ID`` if that is a plain one, else a new one. An error that nothing else answered
    is logged in full and answered with an opaque 500. In the metrics, what no route took and is not among ``paths``
    shares one label, so that nobody can add labels.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Set[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if REQUEST_ID.fullmatch(offered) else f"{random.getrandbits(128):032x}"
        record = Record()
        state = scope.setdefault("state", {})
        state["request_id"], state["record"] = request_id, record
        status = CLIENT_GONE

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", request_id.encode())]
                if len(record.answers) == 1:
                    (answer,) = record.answers
                    headers.append(
                        (
                            b"server-timing",
                            _server_timing(answer, time.perf_counter() - started).encode(),
                        )
                    )
                    trace_steps(answer.durations, {"request_id": request_id, **_outcome(answer)})
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        self.metrics.requests_in_flight += 1
        try:
            await self.app(scope, receive, send_and_note)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:  # a defect of ours: its trace goes to the log, and the client is told no more than its id
            log.exception("request %s failed", request_id)
            if status != CLIENT_GONE:
                raise  # an answer has begun, so there is none to be given
            await internal_error(scope)(scope, receive, send_and_note)
        finally:
            self.metrics.requests_in_flight -= 1
            # What was refused on its way has no route yet.
            path: str = scope["path"] if scope["path"] in self.paths else "unmatched"
            route = getattr(scope.get("route"), "path", path)
            seconds = time.perf_counter() - started
            self.metrics.observe(route, status, state.get("problem"), seconds, record)
            if access_log.isEnabledFor(logging.INFO):
                # Not by info(), which would look for the line of code that called it.
                line = logging.LogRecord(access_log.name, logging.INFO, "", 0, "", (), None)
                line.request = _log_entry(scope, route, status, seconds, record)
                access_log.handle(line)


def forget_worker(process_id: int, folder: str) -> None:
    """Drop the gauges of a worker that has ended from the shared ``folder``; its counters stay in the sums."""
    mark_process_dead(process_id, folder)  # type: ignore[no-untyped-call]


def configure_logging(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Log to standard error, one line an event: as JSON, or for people where it is a terminal."""
    handler = logging.StreamHandler()
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler.setFormatter(
        JsonFormatter()
        if as_json
        else TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a log record."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": moment, "level": record.levelname.lower()}
        entry |= getattr(record, "request", None) or {
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """One line for people."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library's name
        """Render a log record."""
        for name, value in getattr(record, "request", {}).items():
            record.message += f"{name}={value!r} "  # a line break in a path must not begin a line
        return super().formatMessage(record)


def _log_entry(
    scope: Scope, route: str, status: int, seconds: float, record: Record
) -> dict[str, object]:
    state = scope["state"]
    entry: dict[str, object] = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "route": route,
        "path": scope["path"][:MAX_PATH_CHARACTERS],
        "status": status,
        "total_ms": round(seconds * 1000, 3),
    }
    if traced := trace_id(scope):
        entry["trace_id"] = traced
    entry |= {name: state[name] for name in ("client", "problem") if name in state}
    if record.upload_bytes is not None:
        entry["bytes"] = record.upload_bytes
    if record.failures or len(record.answers) > 1:
        entry |= {
            "images": len(record.answers) + len(record.failures),
            "failed": len(record.failures),
        }
    elif record.answers:
        (answer,) = record.answers
        entry |= {
            f"{name}_ms": round(duration * 1000, 3) for name, duration in answer.durations.items()
        }
        entry |= _outcome(answer)
    return entry


def _outcome(answer: ImageAnswer) -> dict[str, str | int]:
    return {"batch_size": answer.batch_size, "class_name": answer.classification.class_name}


def _server_timing(answer: ImageAnswer, seconds: float) -> str:
    durations = answer.durations | {"total": seconds}
    return ", ".join(f"{name};dur={duration * 1000:.3f}" for name, duration in durations.items())
