"""The path of a request from the upload to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.bundle import read_bundle
from service.errors import InferenceError, NotReadyError
from service.inference.classification import Classification
from service.inference.classifier import Classifier, load_classifier
from service.inference.decoding import SMALL_UPLOAD_BYTES
from service.inference.models import LiveModels
from service.inference.predictor import Predictor
from service.machine.sizing import count_threads
from service.settings import Settings
from tests.service.bundles import write_linear_bundle
from tests.service.images import encode, noise
from tests.service.inference.models import started_models

GOOD = encode(np.full((20, 30), 7, np.uint8))
POISON = encode(np.full((20, 30), 255, np.uint8))


def poisonable_model() -> bytes:
    """Serialize a model that answers 1/3 for each class, and that fails on a pixel of 255."""
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["wide"], ["brightest"], keepdims=0),
        helper.make_node("Gather", ["table", "brightest"], ["third"]),
        helper.make_node("Shape", ["image"], ["count"], start=0, end=1),
        helper.make_node("Concat", ["count", "three"], ["shape"], axis=0),
        helper.make_node("Expand", ["third", "shape"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "poisonable",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 20, 30])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.full(255, 1 / 3, np.float32), "table"),
            numpy_helper.from_array(np.array([3]), "three"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    serialized: bytes = model.SerializeToString()
    return serialized


class WatchedClassifier(Classifier):
    """A real classifier that records the size of each batch."""

    batches: ClassVar[list[int]] = []

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Record the size of the batch and classify it."""
        self.batches.append(len(images))
        return super().classify(images)


def run(
    settings: Settings,
    test: Callable[[Predictor], Coroutine[Any, Any, None]],
    load: Callable[[Path], Classifier] | None = None,
    **hooks: Any,
) -> None:
    """Run ``test`` with a predictor whose models are started."""

    async def main() -> None:
        async with started_models(settings, load, **hooks) as models:
            threads = count_threads(settings, workers=1)
            predictor = Predictor(settings, models, threads=threads)
            await test(predictor)
            predictor.close()

    asyncio.run(main())


def test_model_that_is_not_loaded_answers_nothing(linear_folder: Path) -> None:
    """Before the model is loaded, every kind of request is rejected."""
    settings = Settings(models=(linear_folder,), device="cpu")
    models = LiveModels(settings, partial(load_classifier, device="cpu"), threads=1)
    predictor = Predictor(settings, models, threads=1)
    for request in (
        predictor.predict(GOOD),
        predictor.predict_files([GOOD]),
        predictor.predict_tensor(bytes(600), "1,20,30"),
    ):
        with pytest.raises(NotReadyError, match="starting"):
            asyncio.run(request)


def test_single_image_does_not_wait_for_a_whole_tensor(linear_folder: Path) -> None:
    """A single image waits only for a few images of a large tensor that arrived earlier."""

    async def test(predictor: Predictor) -> None:
        tensor = asyncio.create_task(predictor.predict_tensor(bytes(1024 * 20 * 30), "1024,20,30"))
        for _ in range(2):  # until the first images of the tensor wait
            await asyncio.sleep(0)
        WatchedClassifier.batches = []
        await predictor.predict(GOOD)
        assert len(WatchedClassifier.batches) < 5
        assert len((await tensor).answers) == 1024

    settings = Settings(models=(linear_folder,), threads=1)
    run(settings, test, lambda folder: WatchedClassifier(read_bundle(folder), "cpu"))


def test_photos_that_wait_reach_the_model_together(linear_folder: Path) -> None:
    """Photos that a thread decodes together form one batch. A single photo does not wait."""
    photos = [encode(noise(100, 100, seed)) for seed in range(9)]

    async def test(predictor: Predictor) -> None:
        assert (await predictor.predict(photos[0])).batch_size == 1
        # On a busy machine, two photos may take longer than a thread's patience: try again.
        for _ in range(10):
            answers = await asyncio.gather(*map(predictor.predict, photos))
            if max(answer.batch_size for answer in answers) > 1:
                return
        pytest.fail("no two photos were in one batch")

    run(Settings(models=(linear_folder,), device="cpu", threads=1), test)


def test_image_that_breaks_the_model_fails_alone(tmp_path: Path) -> None:
    """If ONNX Runtime fails on an image, only this image fails, and the service stays ready."""
    bundle = write_linear_bundle(
        tmp_path / "m", model=poisonable_model(), self_test=(1 / 3, 1 / 3, 1 / 3)
    )

    async def test(predictor: Predictor) -> None:
        uploads = [POISON if i % 8 == 3 else GOOD for i in range(64)]
        outcomes = await asyncio.gather(*map(predictor.predict, uploads), return_exceptions=True)
        for upload, outcome in zip(uploads, outcomes, strict=True):
            assert isinstance(outcome, InferenceError) == (upload is POISON), outcome
        assert predictor.models.status == "ready"

    run(Settings(models=(bundle.folder,), device="cpu", threads=1), test)


@pytest.mark.parametrize("kept", [True, False])
def test_answers_of_a_batch_keep_their_pixels_if_asked_to(linear_folder: Path, kept: bool) -> None:
    """A batch of a thousand photos would keep 200 MB until its answer is written."""
    photo = encode(noise(100, 100))

    async def test(predictor: Predictor) -> None:
        (answer,) = (await predictor.predict_files([photo], with_pixels=kept)).answers
        assert answer.source.image.size == (600 if kept else 0)
        assert (answer.source.placed is not None) == kept
        assert answer.source.source_pixels == 10_000

    run(Settings(models=(linear_folder,), device="cpu", threads=1), test)


def test_batch_that_fails_leaves_no_work(tmp_path: Path) -> None:
    """If the model fails on an image of a batch, the images after it are not decoded any more."""
    model, third = poisonable_model(), (1 / 3, 1 / 3, 1 / 3)
    bundle = write_linear_bundle(tmp_path / "m", model=model, self_test=third)
    photos = [encode(noise(500, 500, seed) // 2) for seed in range(20)]

    async def test(predictor: Predictor) -> None:
        WatchedClassifier.batches = []
        with pytest.raises(InferenceError):
            await predictor.predict_files([POISON, *photos])
        await asyncio.sleep(0.5)
        assert sum(WatchedClassifier.batches) < len(photos) / 2

    settings = Settings(models=(bundle.folder,), device="cpu", threads=1)
    run(settings, test, lambda folder: WatchedClassifier(read_bundle(folder), "cpu"))


def test_batch_of_small_images_does_not_block_the_event_loop(linear_folder: Path) -> None:
    """Other tasks run between images that are small but slow to decode, such as colour images."""
    upload = encode(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    assert len(upload) < SMALL_UPLOAD_BYTES

    async def test(predictor: Predictor) -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count_turns())
        batch = await predictor.predict_files([upload] * 32)
        counting.cancel()
        assert len(batch.answers) == 32
        assert turns >= 32

    run(Settings(models=(linear_folder,), threads=1), test)


def test_answer_holds_pixels_and_durations(linear_folder: Path) -> None:
    """An answer has the upload's number of pixels and the duration of each step.

    An upload that waits for the only thread waits in its step ``queue``.
    """
    slow, fast = encode(noise(2000, 2000)), encode(noise(100, 90))

    async def test(predictor: Predictor) -> None:
        first, second = await asyncio.gather(predictor.predict(slow), predictor.predict(fast))
        assert (first.source.source_pixels, second.source.source_pixels) == (2000 * 2000, 9000)
        assert all(seconds > 0 for seconds in second.durations.values())
        assert second.queue_seconds > first.decode_seconds / 2 > second.decode_seconds

    run(Settings(models=(linear_folder,), device="cpu", threads=1), test)


@pytest.fixture
def impatient(linear_folder: Path) -> Settings:
    """Settings with one thread, a very short deadline and frequent checks."""
    return Settings(
        models=(linear_folder,),
        device="cpu",
        threads=1,
        check_interval_seconds=0.01,
        request_timeout_seconds=0.01,
    )


def test_slow_image_is_not_a_stuck_thread(impatient: Settings) -> None:
    """A thread that decodes longer than the request timeout does not count as stuck."""
    slow = encode(noise(4000, 4000), compress_level=1)

    async def test(predictor: Predictor) -> None:
        watch = asyncio.create_task(predictor.watch())
        await asyncio.gather(*(predictor.predict(slow) for _ in range(5)))
        assert predictor.models.status == "ready"
        assert not watch.done()
        watch.cancel()

    run(impatient, test)


def test_stuck_threads_end_the_service(impatient: Settings) -> None:
    """When every thread is stuck at an image, the model gives up."""
    slow = encode(noise(4000, 4000), compress_level=1)
    failed = asyncio.Event()

    async def test(predictor: Predictor) -> None:
        watch = asyncio.create_task(predictor.watch())
        await predictor.predict(GOOD)
        uploads = [asyncio.create_task(predictor.predict(slow)) for _ in range(20)]
        await asyncio.wait_for(failed.wait(), 30)
        assert predictor.models.status == "failed"
        await watch
        for task in uploads:
            task.cancel()

    run(impatient.model_copy(update={"stuck_seconds": 0.01}), test, on_failure=failed.set)
