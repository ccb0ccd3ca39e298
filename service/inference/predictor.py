"""Own the way from uploaded bytes to probabilities, off the event loop, and the status that /health tells."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import Manifest, newest_version, read_bundle
from service.errors import BundleError, ImageError, InferenceError, NotReadyError, ServiceError
from service.imaging.model_input import PREPROCESSING, SUPERSEDED, ModelInput
from service.imaging.tensors import read_tensor
from service.inference.batching import Batcher
from service.inference.classification import Classification
from service.inference.classifier import Classifier
from service.inference.decoding import Decoded, Decoder
from service.machine.sizing import count_threads
from service.settings import Settings

log = logging.getLogger(__name__)

Status = Literal["starting", "ready", "draining", "failed"]
ImageBatcher = Batcher[NDArray[np.uint8], Classification]

MAX_BATCH = 32  # past this a CPU gains nothing an image, and a caller waits longer
SHORT_RUN_SECONDS = 0.001
STUCK_SECONDS = (
    60  # at one image: the slowest that is allowed takes a few, and more where others want the core
)
SELF_TEST_TIMEOUT_SECONDS = 30  # a device that hangs never raises


@dataclass(frozen=True)
class ImageAnswer:
    """The classification of one upload, and what it took."""

    classification: Classification
    source: ModelInput
    batch_size: int
    decode_seconds: float
    queue_seconds: float
    inference_seconds: float

    @property
    def durations(self) -> dict[str, float]:
        """Seconds by step."""
        return {
            "decode": self.decode_seconds,
            "queue": self.queue_seconds,
            "inference": self.inference_seconds,
        }


@dataclass(frozen=True)
class BatchAnswer:
    """The answers to the images of one request, in order, all by one model: each a classification or a failure."""

    manifest: Manifest
    items: Sequence[ImageAnswer | ImageError]

    @property
    def answers(self) -> list[ImageAnswer]:
        """The classifications."""
        return [item for item in self.items if isinstance(item, ImageAnswer)]

    @property
    def failures(self) -> list[ImageError]:
        """The failures."""
        return [item for item in self.items if isinstance(item, ImageError)]


class Predictor:
    """Loads a model and answers uploads with it, on threads of its own.

    ``load`` makes the classifier: at the start, to replace one that a new version supersedes, and once more when the
    one that serves has failed. ``on_failure`` is called when there is none to be had.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Classifier],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._load = load
        self._on_failure = on_failure
        self._started = time.monotonic()
        self._last_success = 0.0
        self._draining = False
        self._failed = False
        self._serving: tuple[Classifier, ImageBatcher] | None = None
        self._changing = asyncio.Lock()
        self._recovering: set[asyncio.Task[None]] = (
            set()
        )  # the event loop alone would let them be collected
        self._threads = count_threads(
            settings, workers=1
        )  # a supervisor has set those of each of several
        self._decoder = Decoder(self._threads, settings.max_image_pixels)
        self._inferring = ThreadPoolExecutor(self._threads, thread_name_prefix="infer")

    @property
    def status(self) -> Status:
        """Whether the service takes traffic."""
        if self._draining:
            return "draining"
        if self._failed:
            return "failed"
        return "starting" if self._serving is None else "ready"

    @property
    def uptime_seconds(self) -> float:
        """Seconds since this predictor was made."""
        return time.monotonic() - self._started

    @property
    def classifier(self) -> Classifier | None:
        """The classifier that serves; None before the first is loaded."""
        return self._serving[0] if self._serving else None

    @property
    def queue_depth(self) -> int:
        """How many images wait for a thread or a batch."""
        return self._decoder.depth + (self._serving[1].depth if self._serving else 0)

    async def start(self) -> None:
        """Load and verify the model; the status is ``ready`` afterwards, or ``failed``."""
        async with self._changing:
            await self._replace()

    async def reload(self) -> None:
        """Load and verify the model beside the one that serves, and swap them; a bad one is refused and logged."""
        async with self._changing:
            try:
                classifier = await asyncio.to_thread(self._load)
            except Exception as error:  # whatever it is, the old one still serves
                log.error("the new model is refused, the old one goes on serving: %s", error)
            else:
                self._serve(classifier)

    async def predict(self, upload: bytes) -> ImageAnswer:
        """Classify one uploaded image.

        Raises:
            NotReadyError: No model is loaded.
            InvalidRequestError: The upload cannot be answered; see ``read_image``.
            InferenceError: The model failed on this image.
        """
        classifier, batcher = self._ready()
        decoded = await self._decoder.decode(upload, classifier.manifest.input_size)
        return await self._classify(classifier, batcher, decoded)

    async def predict_files(self, uploads: Sequence[bytes]) -> BatchAnswer:
        """Classify uploaded images, each of which may fail by itself.

        Raises:
            NotReadyError: No model is loaded.
            InferenceError: The model failed on one of the images.
        """
        classifier, batcher = self._ready()
        decoding = asyncio.Semaphore(
            self._threads
        )  # so that others' images wait for a few of these, and not for all

        async def answer(upload: bytes) -> ImageAnswer | ImageError:
            async with decoding:
                began = time.perf_counter()
                try:
                    decoded = await self._decoder.decode(upload, classifier.manifest.input_size)
                except ImageError as error:
                    return error
                finally:
                    if time.perf_counter() - began > SHORT_RUN_SECONDS:
                        await asyncio.sleep(
                            0
                        )  # the event loop turns after each small image that takes long
            return await self._classify(classifier, batcher, decoded)

        items: list[ImageAnswer | ImageError] = []
        for start in range(0, len(uploads), MAX_BATCH):  # the event loop must turn in between
            items += await asyncio.gather(*map(answer, uploads[start : start + MAX_BATCH]))
        return BatchAnswer(classifier.manifest, items)

    async def predict_tensor(self, data: bytes, shape: str | None) -> BatchAnswer:
        """Classify all images of a tensor; see ``read_tensor``.

        Raises:
            NotReadyError: No model is loaded.
            UnreadableTensorError: See ``read_tensor``.
            InferenceError: The model failed on one of the images.
        """
        classifier, batcher = self._ready()
        images = read_tensor(data, shape, classifier.manifest.input_size)
        answers: list[ImageAnswer] = []
        at_a_time = (
            MAX_BATCH * self._threads
        )  # so that others' images wait for a few of these, and not for all
        for start in range(0, len(images), at_a_time):
            inputs = [
                Decoded(ModelInput(image, image.size))
                for image in images[start : start + at_a_time]
            ]
            answers += await asyncio.gather(
                *(self._classify(classifier, batcher, each) for each in inputs)
            )
        return BatchAnswer(classifier.manifest, answers)

    def _ready(self) -> tuple[Classifier, ImageBatcher]:
        if self._serving is None:
            raise NotReadyError(
                f"the service is {self.status} and takes no uploads now; try again later"
            )
        return self._serving

    async def _classify(
        self, classifier: Classifier, batcher: ImageBatcher, decoded: Decoded
    ) -> ImageAnswer:
        try:
            batched = await batcher.submit(decoded.source.image)
        except Exception as error:
            log.exception("inference failed")
            # In a task of its own: a client that leaves now, or a deadline, must not leave the service without a model.
            recovering = asyncio.create_task(self.self_test(classifier))
            self._recovering.add(recovering)
            recovering.add_done_callback(self._recovering.discard)
            await asyncio.shield(recovering)
            raise InferenceError("the model failed on this image; try again later") from error
        self._last_success = time.monotonic()
        return ImageAnswer(
            batched.answer,
            decoded.source,
            batched.batch_size,
            decoded.decode_seconds,
            decoded.queue_seconds + batched.queue_seconds,
            batched.run_seconds,
        )

    async def self_test(self, classifier: Classifier) -> None:
        """Put ``classifier`` to its self-test, unless it no longer serves; if it fails, try one rebuild."""
        async with self._changing:
            if self.classifier is not classifier:
                return
            try:
                async with asyncio.timeout(SELF_TEST_TIMEOUT_SECONDS):
                    await asyncio.to_thread(classifier.self_test)
            except (ServiceError, TimeoutError) as error:
                log.error("the self-test failed, the model is loaded again: %r", error)
                self._serving = None
                self._failed = True
                await self._replace()
            else:
                self._last_success = time.monotonic()

    async def watch(self) -> None:
        """Look after the model at intervals, for ever.

        A classifier by which nothing was answered since the last look is put to its self-test. A version that is newer
        than all seen so far is loaded; if it is refused, it is not tried again. When all threads are stuck, this gives
        up.
        """
        interval = self._settings.check_interval_seconds
        seen = newest_version(self._settings.model)
        while True:
            await asyncio.sleep(interval)
            if self.is_stuck:
                self._give_up(
                    "every thread is stuck in decoding an image; no other can be decoded any more"
                )
                return
            try:
                newest = newest_version(self._settings.model)
            except OSError as error:
                log.error(
                    "the folder of the model cannot be read, the one that is loaded goes on serving: %s",
                    error,
                )
                newest = seen
            if newest != seen:
                seen = newest
                await self.reload()
            elif self.classifier is not None and time.monotonic() - self._last_success >= interval:
                await self.self_test(self.classifier)

    def drain(self) -> None:
        """Become unready; what was taken on is still answered."""
        self._draining = True

    @property
    def is_stuck(self) -> bool:
        """Whether every thread has been at one image for so long that it will hardly come back."""
        return self._decoder.is_stuck(max(STUCK_SECONDS, self._settings.request_timeout_seconds))

    def close(self) -> None:
        """Stop the threads after what they are at, without waiting for it."""
        self._decoder.close()
        self._inferring.shutdown(wait=False, cancel_futures=True)

    @property
    def is_decoding(self) -> bool:
        """Whether a thread is at an image; no thread can be stopped."""
        return self._decoder.is_at_work

    async def _replace(self) -> None:
        try:
            classifier = await asyncio.to_thread(self._load)
        except Exception as error:
            self._give_up(error, exc_info=None if isinstance(error, ServiceError) else error)
        else:
            self._serve(classifier)

    def _give_up(self, reason: object, exc_info: Exception | None = None) -> None:
        log.critical("%s", reason, exc_info=exc_info)
        self._failed = True
        self._on_failure()

    def _serve(self, classifier: Classifier) -> None:
        # With one thread to a process, a hop to another would only cost. Of what takes longer, the event loop must hear
        # nothing: it answers /health meanwhile.
        inline = (
            self._threads == 1
            and classifier.device == "cpu"
            and classifier.seconds_per_image < SHORT_RUN_SECONDS
        )

        async def infer(images: Sequence[NDArray[np.uint8]]) -> Sequence[Classification]:
            if inline:
                return classifier.classify(images)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._inferring, classifier.classify, images)

        # A GPU is fastest with one owner; on the CPU batches run side by side, so that all cores work.
        slots = 1 if classifier.device == "cuda" else self._threads
        self._serving = classifier, Batcher(infer, max_batch=MAX_BATCH, slots=slots)
        self._failed = False
        self._last_success = time.monotonic()
        manifest = classifier.manifest
        log.info(
            "model %s version %s serves on %s", manifest.name, manifest.version, classifier.device
        )


def load_classifier(settings: Settings) -> Classifier:
    """Load the newest version of the model that ``settings`` name.

    Raises:
        BundleError, DeviceError, InferenceError: See ``Classifier``; or the bundle expects another preprocessing.
    """
    bundle = read_bundle(newest_version(settings.model))
    if bundle.manifest.preprocessing not in {PREPROCESSING, *SUPERSEDED}:
        raise BundleError(
            f"{bundle.folder} expects the preprocessing {bundle.manifest.preprocessing!r} "
            f"but this service has {PREPROCESSING!r}: serve it with the release that it was exported by"
        )
    return Classifier(bundle, settings.device)
