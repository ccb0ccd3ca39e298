"""The metrics of the service, in Prometheus' client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.inference.classifier import Classifier
from service.inference.predictor import Predictor
from service.telemetry.record import Record, is_out_of_distribution
from service.telemetry.shared_files import SharedFiles

CONTENT_TYPE = CONTENT_TYPE_LATEST

SHARE_SECONDS = 1.0  # a worker's metrics are at most so old when another worker renders them

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BYTES = tuple(4**power for power in range(4, 13))
PIXELS = tuple(4**power for power in range(4, 14))
PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """The metrics of one application; with several workers, the sums over all of them.

    ``reasons`` are the names of all problems that reject a request. ``folder`` is where several
    workers share their metrics; it is None for a single worker.
    """

    def __init__(
        self, predictor: Predictor, reasons: Iterable[str], folder: str | None = None
    ) -> None:
        self._predictor = predictor
        self._files = None if folder is None else SharedFiles(Path(folder))
        self._model_labels: set[tuple[str, ...]] = set()
        self.requests_in_flight = 0
        self._registry = CollectorRegistry()
        # The creation times would double the number of series, and several workers export none.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._add_counters()
        self._add_histograms()
        self._add_gauges()
        # Start each series at 0: rate() and increase() do not see the first value of a series.
        for reason in reasons:
            self.rejections.labels(reason)

    def _add_counters(self) -> None:
        self.requests = self._counter("requests", "Requests finished.", "route", "status")
        self.rejections = self._counter(
            "rejections", "Requests and images rejected, by problem.", "reason"
        )
        self.predictions = self._counter(
            "predictions", "Images classified, by the most likely class.", "model", "class_name"
        )
        self.out_of_distribution = self._counter(
            "out_of_distribution", "Images that look like none of the classes.", "model"
        )

    def _add_histograms(self) -> None:
        self.duration = self._histogram(
            "request_duration_seconds",
            "Time from a request to the end of its answer.",
            SECONDS,
            "route",
        )
        self.decode = self._histogram(
            "decode_seconds", "Time to decode an image and fit it to the model.", SECONDS
        )
        self.queue = self._histogram(
            "queue_seconds", "Time that an image waits for a thread or a batch.", SECONDS
        )
        self.inference = self._histogram(
            "inference_seconds", "Time that the model takes for an image's batch.", SECONDS, "model"
        )
        self.batch_size = self._histogram(
            "batch_size", "Size of an image's batch.", BATCH_SIZES, "model"
        )
        self.confidence = self._histogram(
            "confidence", "Probability of the most likely class.", PROBABILITIES, "model"
        )
        self.upload_bytes = self._histogram("upload_bytes", "Bytes of an upload.", BYTES)
        self.image_pixels = self._histogram("image_pixels", "Pixels of an uploaded image.", PIXELS)

    def _add_gauges(self) -> None:
        self.in_flight = self._gauge(
            "requests_in_flight", "Requests that are not answered yet.", "livesum"
        )
        self.queue_depth = self._gauge(
            "queue_depth", "Images that wait for a thread or a batch.", "livesum"
        )
        self.ready = self._gauge("ready", "1 if all workers accept uploads, else 0.", "livemin")
        self.model = self._gauge(
            "model_info",
            "1 for a model that answers, 0 for an earlier version of one.",
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
        self, route: str, status: int, reasons: Iterable[str], seconds: float, record: Record
    ) -> None:
        """Count one finished request; ``reasons`` name the problems of it and its images."""
        self.requests.labels(route, status).inc()
        self.duration.labels(route).observe(seconds)
        for reason in reasons:
            self.rejections.labels(reason).inc()
        if record.upload_bytes is not None:
            self.upload_bytes.observe(record.upload_bytes)
        for answer in record.answers:
            model = answer.classification.manifest.name
            self.predictions.labels(model, answer.classification.class_name).inc()
            self.out_of_distribution.labels(model).inc(is_out_of_distribution(answer))
            self.confidence.labels(model).observe(answer.classification.probability)
            self.batch_size.labels(model).observe(answer.batch_size)
            self.inference.labels(model).observe(answer.inference_seconds)
            self.image_pixels.observe(answer.source.source_pixels)
            self.decode.observe(answer.decode_seconds)
            self.queue.observe(answer.queue_seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._share()
        return generate_latest(self._registry) if self._files is None else self._files.render()

    async def watch(self) -> None:
        """Share this worker's metrics every second, and when it stops: others render them too."""
        try:
            while True:
                self._share()
                await asyncio.sleep(SHARE_SECONDS)
        finally:
            self._share()

    def _share(self) -> None:
        if self._files is not None:
            self._files.restore()
            self._files.write()
        self.ready.set(self._predictor.models.status == "ready")
        self.in_flight.set(self.requests_in_flight)
        self.queue_depth.set(self._predictor.queue_depth)
        self._update_models(self._predictor.models.classifiers)

    def _update_models(self, classifiers: Sequence[Classifier]) -> None:
        serving = {_model_labels(classifier) for classifier in classifiers}
        if serving == self._model_labels:
            return
        for labels in self._model_labels - serving:
            self.model.labels(*labels).set(0)
        for labels in serving:
            self.model.labels(*labels).set(1)
        self._model_labels = serving
        # As above: start each series at 0.
        for manifest in (classifier.manifest for classifier in classifiers):
            for histogram in (self.confidence, self.batch_size, self.inference):
                histogram.labels(manifest.name)
            self.out_of_distribution.labels(manifest.name)
            for class_name in manifest.class_names:
                self.predictions.labels(manifest.name, class_name)


def _model_labels(classifier: Classifier) -> tuple[str, ...]:
    manifest = classifier.manifest
    return manifest.name, manifest.version, classifier.device, classifier.providers[0]
