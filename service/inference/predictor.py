"""The path of a request: uploaded bytes are decoded, batched and classified."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from service.errors import ImageError
from service.imaging.model_input import ModelInput
from service.imaging.tensors import read_tensor
from service.inference.classification import Classification
from service.inference.classifier import MAX_BATCH
from service.inference.decoding import Decoded, Decoder
from service.inference.models import LiveModels, Route
from service.settings import Settings

T = TypeVar("T")

SLOW_DECODE_SECONDS = 0.001  # after a slower image of a batch, other requests have their turn


@dataclass(frozen=True)
class ImageAnswer:
    """The classification of one image, and how long each step took."""

    classification: Classification
    source: ModelInput
    batch_size: int
    decode_seconds: float
    queue_seconds: float
    inference_seconds: float

    def without_pixels(self) -> ImageAnswer:
        """Return the answer without the pixels and the item of its source: they take 200 kB."""
        source = replace(self.source, image=np.empty(0, np.uint8), placed=None)
        return replace(self, source=source)

    @property
    def durations(self) -> dict[str, float]:
        """The seconds that each step took."""
        return {
            "decode": self.decode_seconds,
            "queue": self.queue_seconds,
            "inference": self.inference_seconds,
        }


@dataclass(frozen=True)
class BatchAnswer:
    """The answers to the images of one request, in order."""

    items: Sequence[ImageAnswer | ImageError]

    @property
    def answers(self) -> list[ImageAnswer]:
        """The images that were classified."""
        return [item for item in self.items if isinstance(item, ImageAnswer)]

    @property
    def failures(self) -> list[ImageError]:
        """The images that failed."""
        return [item for item in self.items if isinstance(item, ImageError)]


class Predictor:
    """Classifies uploads with ``models``. Has its own threads to decode them."""

    def __init__(self, settings: Settings, models: LiveModels, *, threads: int) -> None:
        self.models = models
        self._settings = settings
        self._started = time.monotonic()
        self._threads = threads
        self._decoder = Decoder(self._threads, settings.max_image_pixels)

    @property
    def uptime_seconds(self) -> float:
        """Seconds since this predictor was created."""
        return time.monotonic() - self._started

    @property
    def queue_depth(self) -> int:
        """Number of images that wait for a thread or a batch."""
        return self._decoder.depth + self.models.queue_depth

    @property
    def is_stuck(self) -> bool:
        """Whether threads hang, so that only a new process can go on."""
        return self.models.is_hung or self._find_hang() is not None

    async def predict(self, upload: bytes, model: str | None = None) -> ImageAnswer:
        """Classify one uploaded image with the model called ``model``, or the one that fits it.

        Raises:
            InvalidParameterError: No model is called ``model``.
            NotReadyError: A model is not loaded.
            ImageError: The upload cannot be read; see ``read_image``.
            InferenceError: The model failed on this image.
        """
        route = self.models.route(model)
        decoded = await self._decoder.decode(upload, route.default, route.exact)
        return await _classify(route, decoded)

    async def predict_files(
        self, uploads: Sequence[bytes], model: str | None = None, *, with_pixels: bool = False
    ) -> BatchAnswer:
        """Classify uploaded images, each as ``predict`` does; an unreadable image fails alone.

        The answers keep the pixels of their sources only if ``with_pixels`` is set.

        Raises:
            InvalidParameterError: No model is called ``model``.
            NotReadyError: A model is not loaded.
            InferenceError: The model failed on one of the images.
        """
        route = self.models.route(model)
        # Queue only a few images at a time: an image of another request then waits for a few of
        # them, not for all.
        limit = asyncio.Semaphore(self._threads)
        items: list[ImageAnswer | ImageError] = []
        for start in range(0, len(uploads), MAX_BATCH):  # other requests run between slices
            part = uploads[start : start + MAX_BATCH]
            found = await _gather(self._predict_file(route, upload, limit) for upload in part)
            items += [
                item.without_pixels() if isinstance(item, ImageAnswer) and not with_pixels else item
                for item in found
            ]
        return BatchAnswer(items)

    async def predict_tensor(
        self,
        data: bytes,
        shape: str | None,
        model: str | None = None,
        admit: Callable[[int], None] = lambda _: None,
    ) -> BatchAnswer:
        """Classify all images of a tensor with the first model that takes its shape.

        See ``read_tensor`` for ``data`` and ``shape``. ``admit`` gets the number of images before
        the first one is classified; it may raise an error.

        Raises:
            InvalidParameterError: No model is called ``model``.
            NotReadyError: A model is not loaded.
            UnreadableTensorError: See ``read_tensor``.
            InferenceError: The model failed on one of the images.
        """
        route = self.models.route(model)
        images = read_tensor(data, shape, [spec.shape for spec in route.inputs])
        admit(len(images))
        spec = next(spec for spec in route.inputs if spec.shape == images.shape[1:])
        answers: list[ImageAnswer] = []
        # Queue only a few images at a time: an image of another request then waits for a few of
        # them, not for all.
        step = MAX_BATCH * self._threads
        for start in range(0, len(images), step):
            part = [
                Decoded(ModelInput(image, spec, math.prod(spec.size)))
                for image in images[start : start + step]
            ]
            answers += await _gather(_classify(route, each) for each in part)
        return BatchAnswer(answers)

    async def watch(self) -> None:
        """Check at intervals whether threads hang. Then give up."""
        while True:
            await asyncio.sleep(self._settings.check_interval_seconds)
            if hang := self._find_hang():
                self.models.give_up(hang)
                return

    def close(self) -> None:
        """Let the threads stop after their current image, without waiting for them."""
        self._decoder.close()

    def _find_hang(self) -> str | None:
        """Say which work has taken so long that it likely never ends; None if there is none."""
        longest = max(self._settings.stuck_seconds, self._settings.request_timeout_seconds)
        if self._decoder.is_stuck(longest):
            return "every thread is stuck: no other image can be decoded"
        if self.models.longest_run_seconds > longest:
            return f"a batch has not ended after {longest:g} seconds: the device hangs"
        return None

    async def _predict_file(
        self, route: Route, upload: bytes, limit: asyncio.Semaphore
    ) -> ImageAnswer | ImageError:
        async with limit:
            started = time.perf_counter()
            try:
                decoded = await self._decoder.decode(upload, route.default, route.exact)
            except ImageError as error:
                return error
            finally:
                # Small images are decoded in the event loop.
                if time.perf_counter() - started > SLOW_DECODE_SECONDS:
                    await asyncio.sleep(0)
        return await _classify(route, decoded)


async def _gather(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Return the results of concurrent calls, in order. If one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _classify(route: Route, decoded: Decoded) -> ImageAnswer:
    batched = await route.classify(decoded.source)
    return ImageAnswer(
        batched.answer,
        decoded.source,
        batched.batch_size,
        decoded.decode_seconds,
        decoded.queue_seconds + batched.queue_seconds,
        batched.run_seconds,
    )
