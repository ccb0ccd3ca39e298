"""What happens when the model fails while it serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.bundle import MODEL_FILE, newest_version, read_bundle
from service.errors import BundleError, DeviceError, InferenceError, NotReadyError
from service.inference.classification import Classification
from service.inference.classifier import Classifier
from service.inference.decoding import SMALL_UPLOAD_BYTES
from service.inference.predictor import Predictor, load_classifier
from service.settings import Settings
from tests.service.bundles import linear_model, write_linear_bundle
from tests.service.images import encode, noise

GOOD = encode(np.full((20, 30), 7, np.uint8))
POISON = encode(np.full((20, 30), 255, np.uint8))


def poisonable_model() -> bytes:
    """Serialize a model that answers one third each, and that ONNX Runtime itself fails to run on a pixel of 255."""
    nodes = [
        helper.make_node("ReduceMax", ["wide"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "brightest"], ["third"]),
        helper.make_node("Shape", ["image"], ["count"], start=0, end=1),
        helper.make_node("Concat", ["count", "three"], ["shape"], axis=0),
        helper.make_node("Expand", ["third", "shape"], ["probabilities"]),
    ]
    nodes[0], nodes[1] = nodes[1], nodes[0]
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


class BreakableClassifier(Classifier):
    """A real classifier whose device can be broken, as a GPU may, and stays broken."""

    broken = False

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Fail if broken."""
        if self.broken:
            raise RuntimeError("CUDA failure 999")
        return super().classify(images)


class WatchedClassifier(Classifier):
    """A real classifier that notes the size of each batch."""

    batches: ClassVar[list[int]] = []

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Note the batch."""
        self.batches.append(len(images))
        return super().classify(images)


def run(
    settings: Settings, test: Callable[[Predictor], Coroutine[Any, Any, None]], **hooks: Any
) -> None:
    """Run ``test`` on a predictor that was started."""

    async def main() -> None:
        predictor = Predictor(
            settings, hooks.pop("load", lambda: load_classifier(settings)), **hooks
        )
        await predictor.start()
        await test(predictor)
        predictor.close()

    asyncio.run(main())


def test_single_image_does_not_wait_for_a_whole_tensor(linear_folder: Path) -> None:
    """What comes after a tensor of many images is answered between them."""

    async def test(predictor: Predictor) -> None:
        tensor = asyncio.create_task(predictor.predict_tensor(bytes(1024 * 20 * 30), "1024,20,30"))
        for _ in range(2):  # until its first images wait
            await asyncio.sleep(0)
        WatchedClassifier.batches = []
        await predictor.predict(GOOD)
        assert len(WatchedClassifier.batches) < 5
        assert len((await tensor).answers) == 1024

    run(
        Settings(threads=1), test, load=lambda: WatchedClassifier(read_bundle(linear_folder), "cpu")
    )


def test_photos_that_wait_reach_the_model_together(linear_folder: Path) -> None:
    """What a thread decodes in one go is one batch, and a photo that comes alone waits for no other."""
    photos = [encode(noise(100, 100, seed)) for seed in range(9)]

    async def test(predictor: Predictor) -> None:
        assert (await predictor.predict(photos[0])).batch_size == 1
        answers = await asyncio.gather(*map(predictor.predict, photos))
        assert max(answer.batch_size for answer in answers) > 1

    run(Settings(model=linear_folder, device="cpu", threads=1), test)


def test_poisoned_image_harms_nobody_else(tmp_path: Path) -> None:
    """An image that the runtime fails on fails alone; those with it are answered, and the service stays ready."""
    bundle = write_linear_bundle(
        tmp_path / "m", model=poisonable_model(), self_test=(1 / 3, 1 / 3, 1 / 3)
    )

    async def test(predictor: Predictor) -> None:
        uploads = [POISON if i % 8 == 3 else GOOD for i in range(64)]
        outcomes = await asyncio.gather(*map(predictor.predict, uploads), return_exceptions=True)
        for upload, outcome in zip(uploads, outcomes, strict=True):
            assert isinstance(outcome, InferenceError) == (upload is POISON), outcome
        assert predictor.status == "ready"

    run(Settings(model=bundle.folder, device="cpu", threads=1), test)


def test_broken_device_is_replaced_once(linear_folder: Path) -> None:
    """When the device breaks the caller gets an error, the model is loaded again, and the service serves on."""
    loaded: list[BreakableClassifier] = []

    def load() -> Classifier:
        loaded.append(BreakableClassifier(read_bundle(linear_folder), "cpu"))
        return loaded[-1]

    async def test(predictor: Predictor) -> None:
        await predictor.predict(GOOD)
        loaded[0].broken = True
        with pytest.raises(InferenceError):
            await predictor.predict(GOOD)
        assert len(loaded) == 2
        assert predictor.status == "ready"
        await predictor.predict(GOOD)

    run(Settings(), test, load=load)


def test_client_that_leaves_does_not_stop_the_replacement(linear_folder: Path) -> None:
    """When the one whose image failed leaves while the model is loaded again, the service is ready all the same."""
    loaded: list[BreakableClassifier] = []
    leaves, left = threading.Event(), threading.Event()

    def load() -> Classifier:
        if loaded:
            leaves.set()
            assert left.wait(30)
        loaded.append(BreakableClassifier(read_bundle(linear_folder), "cpu"))
        return loaded[-1]

    async def test(predictor: Predictor) -> None:
        loaded[0].broken = True
        request = asyncio.create_task(predictor.predict(GOOD))
        await asyncio.to_thread(leaves.wait, 30)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert request.cancelled()
        assert predictor.classifier is None
        left.set()
        await predictor.self_test(loaded[0])  # which waits for the replacement
        assert predictor.status == "ready"
        await predictor.predict(GOOD)

    run(Settings(), test, load=load)


def test_idle_service_finds_a_broken_device_by_itself(linear_folder: Path) -> None:
    """Without any request the self-test notices that the device broke; without a replacement the service fails."""
    first = BreakableClassifier(read_bundle(linear_folder), "cpu")
    loads = iter([first])

    def load() -> Classifier:
        try:
            return next(loads)
        except StopIteration:
            raise DeviceError("no device is left") from None

    failed = asyncio.Event()

    async def test(predictor: Predictor) -> None:
        watch = asyncio.create_task(predictor.watch())
        await predictor.predict(GOOD)
        first.broken = True
        await asyncio.wait_for(failed.wait(), 30)
        assert predictor.status == "failed"
        with pytest.raises(NotReadyError):
            await predictor.predict(GOOD)
        watch.cancel()

    settings = Settings(check_interval_seconds=0.01)
    run(settings, test, load=load, on_failure=failed.set)


def test_folder_that_cannot_be_read_for_a_while_ends_no_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the versions cannot be looked at, the one that is loaded serves; a newer one is taken up afterwards."""
    versions, elsewhere = tmp_path / "versions", tmp_path / "elsewhere"
    write_linear_bundle(versions / "1", version="1")

    async def test(predictor: Predictor) -> None:
        watch = asyncio.create_task(predictor.watch())
        await asyncio.sleep(0)  # it has begun
        versions.rename(elsewhere)
        versions.symlink_to(
            "x" * 300
        )  # too long a name: an error for root as well, whom no permission stops
        async with asyncio.timeout(30):
            while "cannot be read" not in caplog.text:  # noqa: ASYNC110  the log has no event
                await asyncio.sleep(0.01)
        assert (await predictor.predict(GOOD)).classification.manifest.version == "1"
        versions.unlink()
        elsewhere.rename(versions)
        write_linear_bundle(versions / "2", version="2")
        async with asyncio.timeout(30):
            while (await predictor.predict(GOOD)).classification.manifest.version != "2":  # noqa: ASYNC110  nor has this
                await asyncio.sleep(0.01)
        watch.cancel()

    settings = Settings(model=versions, check_interval_seconds=0.01)
    run(settings, test, load=partial(load_classifier, settings))


def test_wrong_answer_to_the_self_test_is_refused(tmp_path: Path) -> None:
    """A model that does not answer its self-test as the trained network did is not served."""
    bundle = write_linear_bundle(tmp_path / "m", self_test=(0.8, 0.1, 0.1))
    with pytest.raises(InferenceError, match="self-test"):
        Classifier(bundle, "cpu")


def test_weights_in_other_files_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose weights are in another file, which no hash covers, is refused even where that file is at hand."""
    model = onnx.load_from_string(linear_model(3, 20, 30))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    bundle = write_linear_bundle(tmp_path / "m", model=path.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="cannot load"):
        Classifier(bundle, "cpu")


def test_newest_version_is_served(tmp_path: Path) -> None:
    """Of a folder of versions the highest number is served; one whose manifest is not written yet is passed over."""
    for version in ("9", "10", "2"):
        write_linear_bundle(tmp_path / version, version=version)
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / MODEL_FILE).write_bytes(linear_model(3, 20, 30))
    assert newest_version(tmp_path) == tmp_path / "10"
    assert newest_version(tmp_path / "2") == tmp_path / "2"


def test_batch_of_small_images_holds_up_nobody(linear_folder: Path) -> None:
    """Between images that are small but take long, as those in colour do, the event loop turns."""
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

    run(Settings(model=linear_folder, threads=1), test)


def test_size_of_an_upload_is_told(linear_folder: Path) -> None:
    """An answer says how many pixels the upload had, and what each step took."""

    async def test(predictor: Predictor) -> None:
        answer = await predictor.predict(encode(noise(50, 40)))
        assert answer.source.source_pixels == 2000
        assert all(seconds >= 0 for seconds in answer.durations.values())

    run(Settings(model=linear_folder, device="cpu"), test)


def test_slow_image_is_not_taken_for_a_stuck_thread(linear_folder: Path) -> None:
    """However short the time for a request is, a thread that is past it at its image comes back."""
    slow = encode(noise(4000, 4000), compress_level=1)

    async def test(predictor: Predictor) -> None:
        watch = asyncio.create_task(predictor.watch())
        await asyncio.gather(*(predictor.predict(slow) for _ in range(5)))
        assert predictor.status == "ready"
        assert not watch.done()
        watch.cancel()

    settings = Settings(
        model=linear_folder,
        device="cpu",
        threads=1,
        check_interval_seconds=0.01,
        request_timeout_seconds=0.01,
    )
    run(settings, test)


def test_stuck_threads_end_the_service(
    linear_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every thread stays at an image for longer than any can take, the service gives up by itself."""
    monkeypatch.setattr("service.inference.predictor.STUCK_SECONDS", 0.01)
    slow = encode(noise(4000, 4000), compress_level=1)
    failed = asyncio.Event()

    async def test(predictor: Predictor) -> None:
        watch = asyncio.create_task(predictor.watch())
        await predictor.predict(GOOD)
        uploads = [asyncio.create_task(predictor.predict(slow)) for _ in range(20)]
        await asyncio.wait_for(failed.wait(), 30)
        assert predictor.status == "failed"
        for task in (watch, *uploads):
            task.cancel()

    settings = Settings(
        model=linear_folder,
        device="cpu",
        threads=1,
        check_interval_seconds=0.01,
        request_timeout_seconds=0.01,
    )
    run(settings, test, on_failure=failed.set)
