"""The metrics of the service, and their text for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from service.inference.classifier import Classifier
from service.inference.predictor import Predictor
from service.telemetry.record import Record, is_out_of_distribution
from service.telemetry.series import Counter, Family, Gauge, Histogram
from service.telemetry.shared_files import Numbers, SharedFiles

log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_LATEST

SHARE_SECONDS = 1.0  # a worker's metrics are at most so old when another worker renders them

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BYTES = tuple(4**power for power in range(4, 13))
PIXELS = tuple(4**power for power in range(4, 14))
PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics(Collector):
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
        self._add_counts()
        self._add_gauges()
        # Start each series at 0: rate() and increase() do not see the first value of a series.
        for reason in reasons:
            self.rejections.start(reason)

    def _add_counts(self) -> None:
        self.requests = Counter("requests", "Requests finished.", "route", "status")
        self.rejections = Counter(
            "rejections", "Requests and images rejected, by problem.", "reason"
        )
        self.predictions = Counter(
            "predictions", "Images classified, by the most likely class.", "model", "class_name"
        )
        self.out_of_distribution = Counter(
            "out_of_distribution", "Images that look like none of the classes.", "model"
        )
        self.duration = Histogram(
            "request_duration_seconds",
            "Time from a request to the end of its answer.",
            SECONDS,
            "route",
        )
        self.decode = Histogram(
            "decode_seconds", "Time to decode an image and fit it to the model.", SECONDS
        )
        self.queue = Histogram(
            "queue_seconds", "Time that an image waits for a thread or a batch.", SECONDS
        )
        self.inference = Histogram(
            "inference_seconds", "Time that the model takes for an image's batch.", SECONDS, "model"
        )
        self.batch_size = Histogram("batch_size", "Size of an image's batch.", BATCH_SIZES, "model")
        self.confidence = Histogram(
            "confidence", "Probability of the most likely class.", PROBABILITIES, "model"
        )
        self.upload_bytes = Histogram("upload_bytes", "Bytes of an upload.", BYTES)
        self.image_pixels = Histogram("image_pixels", "Pixels of an uploaded image.", PIXELS)
        self._counts: tuple[Family, ...] = (
            self.requests,
            self.rejections,
            self.predictions,
            self.out_of_distribution,
            self.duration,
            self.decode,
            self.queue,
            self.inference,
            self.batch_size,
            self.confidence,
            self.upload_bytes,
            self.image_pixels,
        )

    def _add_gauges(self) -> None:
        self.in_flight = Gauge("requests_in_flight", "Requests that are not answered yet.")
        self.queue_depth = Gauge("queue_depth", "Images that wait for a thread or a batch.")
        self.ready = Gauge("ready", "1 if all workers accept uploads, else 0.", combine=min)
        self.model = Gauge(
            "model_info",
            "1 for a model that answers, 0 for an earlier version of one.",
            "name",
            "version",
            "device",
            "provider",
            combine=max,
        )
        self._gauges: tuple[Family, ...] = self.in_flight, self.queue_depth, self.ready, self.model

    def observe(
        self, route: str, status: int, reasons: Iterable[str], seconds: float, record: Record
    ) -> None:
        """Count one finished request; ``reasons`` name the problems of it and its images."""
        self.requests.add(1, route, str(status))
        self.duration.observe(seconds, route)
        for reason in reasons:
            self.rejections.add(1, reason)
        if record.upload_bytes is not None:
            self.upload_bytes.observe(record.upload_bytes)
        for answer in record.answers:
            model = answer.classification.manifest.name
            self.predictions.add(1, model, answer.classification.class_name)
            self.out_of_distribution.add(is_out_of_distribution(answer), model)
            self.confidence.observe(answer.classification.probability, model)
            self.batch_size.observe(answer.batch_size, model)
            self.inference.observe(answer.inference_seconds, model)
            self.image_pixels.observe(answer.source.source_pixels)
            if answer.decode_seconds:  # images of a tensor are not decoded
                self.decode.observe(answer.decode_seconds)
            self.queue.observe(answer.queue_seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._share()
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric for Prometheus' client."""
        families = self._counts + self._gauges
        parts = [_numbers(families)]
        if self._files is not None:
            parts += self._files.read_others()
        for family in families:
            yield family.collect(part.get(family.name, {}) for part in parts)

    async def watch(self) -> None:
        """Share this worker's metrics every second, and when it stops: others render them too."""
        try:
            while True:
                self._share()
                await asyncio.sleep(SHARE_SECONDS)
        finally:
            self._share()

    def _share(self) -> None:
        self._update_gauges()
        if self._files is not None:
            try:
                self._files.write(_numbers(self._counts), _numbers(self._gauges))
            except OSError as error:  # a disk that is full now may have space in a second
                log.error("this worker cannot share its metrics: %s", error)

    def _update_gauges(self) -> None:
        self.ready.set(self._predictor.models.status == "ready")
        self.in_flight.set(self.requests_in_flight)
        self.queue_depth.set(self._predictor.queue_depth)
        self._update_models(self._predictor.models.classifiers)

    def _update_models(self, classifiers: Sequence[Classifier]) -> None:
        serving = {_model_labels(classifier) for classifier in classifiers}
        if serving == self._model_labels:
            return
        for labels in self._model_labels - serving:
            self.model.set(0, *labels)
        for labels in serving:
            self.model.set(1, *labels)
        self._model_labels = serving
        # As above: start each series at 0.
        for manifest in (classifier.manifest for classifier in classifiers):
            for histogram in (self.confidence, self.batch_size, self.inference):
                histogram.start(manifest.name)
            self.out_of_distribution.start(manifest.name)
            for class_name in manifest.class_names:
                self.predictions.start(manifest.name, class_name)


def _numbers(families: Iterable[Family]) -> Numbers:
    return {family.name: family.series for family in families}


def _model_labels(classifier: Classifier) -> tuple[str, ...]:
    manifest = classifier.manifest
    return manifest.name, manifest.version, classifier.device, classifier.providers[0]
