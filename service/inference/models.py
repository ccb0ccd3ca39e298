"""All models that serve, and which of them answers an image."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from service.errors import BundleError, InvalidParameterError
from service.imaging.model_input import InputSpec, ModelInput
from service.inference.batching import Batched
from service.inference.classification import Classification
from service.inference.classifier import Classifier
from service.inference.live_model import LiveModel, Status
from service.inference.scheduling import ScheduledClassifier
from service.settings import Settings

log = logging.getLogger(__name__)

BY_URGENCY: tuple[Status, ...] = ("draining", "failed", "starting", "ready")
MAX_NAME_CHARACTERS = 100  # an error quotes the name that the client sent


class Route:
    """The models that may answer one request, each in the version that serves at its start.

    A grey image that has exactly the size of one of the grey inputs ``exact`` goes to the model
    with this input. Every other image is turned into ``default``: the input of the first photo
    model, or of the first model if there is no photo model. If several models have the same input,
    the first one answers.

    Raises:
        NotReadyError: One of the models is not loaded.
    """

    def __init__(self, models: Sequence[LiveModel]) -> None:
        self._models: dict[InputSpec, tuple[LiveModel, ScheduledClassifier]] = {}
        for model in models:
            scheduled = model.current()
            self._models.setdefault(scheduled.classifier.input_spec, (model, scheduled))
        self.inputs = tuple(self._models)
        self.exact = tuple(spec for spec in self.inputs if spec.is_grey)
        self.default = next((spec for spec in self.inputs if not spec.is_grey), self.inputs[0])

    async def classify(self, source: ModelInput) -> Batched[Classification]:
        """Classify an image with the model that it was made for.

        Raises:
            InferenceError: The model failed on this image.
        """
        model, scheduled = self._models[source.spec]
        return await model.classify(scheduled, source.image)


class LiveModels:
    """The models in the folders ``settings.models``; a ``LiveModel`` keeps each in service.

    ``load`` returns a classifier of the version in a folder. ``on_failure`` is called if a model
    cannot be loaded or hangs, and by ``give_up``.

    Each model has its own session and batcher, but all models share one pool of ``threads``
    threads for the batches that do not run in the event loop. A batch keeps one core busy, so with
    a pool for each model, a worker would use more cores than its share.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Path], Classifier],
        on_failure: Callable[[], None] = lambda: None,
        *,
        threads: int,
    ) -> None:
        self._load = load
        self._on_failure = on_failure
        self._has_given_up = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")
        self._models = [
            LiveModel(
                folder,
                partial(self._load_named, number),
                partial(ScheduledClassifier, pool=self._pool, threads=threads),
                on_failure,
                check_interval_seconds=settings.check_interval_seconds,
            )
            for number, folder in enumerate(settings.models)
        ]

    def __iter__(self) -> Iterator[LiveModel]:
        return iter(self._models)

    @property
    def status(self) -> Status:
        """Whether the service takes traffic: ``ready`` if every model is ready."""
        statuses = {model.status for model in self._models}
        if self._has_given_up:
            statuses.add("failed")
        return next(status for status in BY_URGENCY if status in statuses)

    @property
    def classifiers(self) -> list[Classifier]:
        """The classifiers that serve."""
        return [model.classifier for model in self._models if model.classifier]

    @property
    def longest_run_seconds(self) -> float:
        """For how long the oldest of the batches that run now has been running."""
        return max(model.longest_run_seconds for model in self._models)

    @property
    def is_hung(self) -> bool:
        """Whether a self-test or a load hangs."""
        return any(model.is_hung for model in self._models)

    @property
    def queue_depth(self) -> int:
        """Number of images that wait for a batch."""
        return sum(model.queue_depth for model in self._models)

    def route(self, name: str | None = None) -> Route:
        """Return the models that may answer a request: all, or only the model called ``name``.

        Raises:
            InvalidParameterError: There is no such model.
            NotReadyError: A model is not loaded.
        """
        if name is None:
            return Route(self._models)
        named = [model for model in self._models if model.name == name]
        if not named:
            names = ", ".join(model.name for model in self._models)
            raise InvalidParameterError(
                f"model={name[:MAX_NAME_CHARACTERS]}: this model is not served; send one of {names}"
            )
        return Route(named)

    async def start(self) -> None:
        """Load the first classifier of each model, one model after the other."""
        for model in self._models:
            await model.start()

    async def reload(self) -> None:
        """Swap in the newest version of each model. If it is bad, keep the current version."""
        for model in self._models:
            await model.reload()

    async def watch(self) -> None:
        """Check every model at intervals, forever."""
        await asyncio.gather(*(model.watch() for model in self._models))

    def drain(self) -> None:
        """Set the status to ``draining``. Requests in flight are still answered."""
        for model in self._models:
            model.drain()

    def give_up(self, reason: str) -> None:
        """Log ``reason``, set the status to ``failed`` and call ``on_failure``."""
        log.critical("%s", reason)
        self._has_given_up = True
        self._on_failure()

    def close(self) -> None:
        """Let the threads stop after their current work, without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for model in self._models:
            model.close()

    def _load_named(self, number: int, version: Path) -> Classifier:
        """Load a version of the model at place ``number``; no other model may have its name."""
        classifier = self._load(version)
        folder, name = self._models[number].folder, classifier.manifest.name
        for other in self._models[:number] + self._models[number + 1 :]:
            if other.classifier and other.name == name:
                raise BundleError(
                    f"{folder} and {other.folder} both hold a model called {name}; each model "
                    "needs its own name: remove one of the folders from SERVICE_MODELS"
                )
        return classifier
