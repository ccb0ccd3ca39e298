"""Several live models: each is swapped, tested and replaced without the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle import read_bundle
from service.errors import DeviceError, InferenceError, InvalidParameterError, NotReadyError
from service.imaging.model_input import ModelInput
from service.inference.classifier import Classifier, load_classifier
from service.inference.decoding import MAX_TOGETHER
from service.inference.models import LiveModels
from service.inference.predictor import Predictor
from service.settings import Settings
from tests.service.bundles import write_linear_bundle, write_photo_bundle
from tests.service.images import encode, noise
from tests.service.inference.models import started_models
from tests.service.inference.test_live_model import OFTEN, BreakableClassifier, wait_until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of two models, one grey and one for photos, each in a folder of versions."""
    for write, name in ((write_linear_bundle, "linear"), (write_photo_bundle, "colours")):
        write(tmp_path / name / "1")
    folders = tmp_path / "linear", tmp_path / "colours"
    return Settings(models=folders, device="cpu", threads=1, check_interval_seconds=OFTEN)


def run(
    settings: Settings,
    test: Callable[[LiveModels], Coroutine[Any, Any, None]],
    load: Callable[[Path], Classifier] | None = None,
    **hooks: Any,
) -> None:
    """Run ``test`` with started models."""

    async def main() -> None:
        async with started_models(settings, load, **hooks) as models:
            await test(models)

    asyncio.run(main())


async def versions(models: LiveModels) -> dict[str, str]:
    """Classify an image with each model; map its name to the version that answered."""
    route = models.route()
    answers = {}
    for spec in route.inputs:
        source = ModelInput(np.zeros(spec.shape, np.uint8), spec, 1)
        manifest = (await route.classify(source)).answer.manifest
        answers[manifest.name] = manifest.version
    return answers


def test_new_version_of_one_model_leaves_the_other_alone(
    settings: Settings, tmp_path: Path
) -> None:
    """A newer version is swapped in for its model only. SIGHUP's reload reads all folders."""

    async def test(models: LiveModels) -> None:
        first, second = models.classifiers
        watch = asyncio.create_task(models.watch())
        for _ in range(2):  # let the watch of each model start
            await asyncio.sleep(0)
        write_photo_bundle(tmp_path / "new", version="2").folder.rename(tmp_path / "colours" / "2")
        await wait_until(lambda: models.classifiers[1] is not second)
        assert await versions(models) == {"linear": "1", "colours": "2"}
        assert models.classifiers[0] is first
        watch.cancel()
        write_linear_bundle(tmp_path / "linear" / "3", version="3")
        await models.reload()
        assert await versions(models) == {"linear": "3", "colours": "2"}

    run(settings, test)


def test_request_keeps_the_versions_of_its_start(settings: Settings, tmp_path: Path) -> None:
    """An image that was decoded before a swap is answered by the version that it was made for."""

    async def test(models: LiveModels) -> None:
        route = models.route()
        write_photo_bundle(tmp_path / "colours" / "2", version="2")
        await models.reload()
        source = ModelInput(np.zeros(route.default.shape, np.uint8), route.default, 1)
        assert (await route.classify(source)).answer.manifest.version == "1"
        assert (await versions(models))["colours"] == "2"

    run(settings, test)


@pytest.mark.parametrize(("folder", "name"), [("colours", "linear"), ("linear", "colours")])
def test_new_version_with_the_name_of_another_model_is_rejected(
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    folder: str,
    name: str,
) -> None:
    """A newer version that takes another model's name is rejected; the current one serves on."""

    async def test(models: LiveModels) -> None:
        write_linear_bundle(tmp_path / folder / "2", name=name, version="2")
        await models.reload()
        assert f"model {folder}: the new version is rejected" in caplog.text
        assert f"both hold a model called {name}" in caplog.text
        assert await versions(models) == {"linear": "1", "colours": "1"}
        assert models.status == "ready"

    run(settings, test)


def test_model_that_fails_does_not_touch_the_other(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """While a broken model is loaded again, the service is failed but the other model answers."""
    broken = threading.Event()
    loading, released = threading.Event(), threading.Event()

    def load(folder: Path) -> Classifier:
        if folder.parent.name == "linear":
            return load_classifier(folder, "cpu")
        if broken.is_set():
            loading.set()
            assert released.wait(30)
        return BreakableClassifier(read_bundle(folder), "cpu")

    async def test(models: LiveModels) -> None:
        grey, photos = models.classifiers
        assert isinstance(photos, BreakableClassifier)
        photos.broken = True
        broken.set()
        failing = asyncio.create_task(versions(models))
        await asyncio.to_thread(loading.wait, 30)
        assert [models.status, *(model.status for model in models)] == ["failed", "ready", "failed"]
        with pytest.raises(NotReadyError, match="colours is failed"):
            models.route()
        route = models.route("linear")
        source = ModelInput(np.zeros(route.default.shape, np.uint8), route.default, 1)
        assert (await route.classify(source)).answer.manifest.name == "linear"
        released.set()
        with pytest.raises(InferenceError):
            await failing
        assert models.status == "ready"
        assert models.classifiers[0] is grey
        assert "model colours: the self-test failed" in caplog.text

    run(settings, test, load)


def test_model_that_cannot_be_loaded_again_ends_the_service(settings: Settings) -> None:
    """If one of two models cannot be loaded again after a failure, the service has failed."""
    loads: list[Path] = []

    def load(folder: Path) -> Classifier:
        if folder in loads:
            raise DeviceError("no device is left")
        loads.append(folder)
        return BreakableClassifier(read_bundle(folder), "cpu")

    failures: list[str] = []

    async def test(models: LiveModels) -> None:
        classifier = models.classifiers[1]
        assert isinstance(classifier, BreakableClassifier)
        classifier.broken = True
        with pytest.raises(InferenceError):
            await versions(models)
        watch = asyncio.create_task(models.watch())
        async with asyncio.timeout(30):
            while not failures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        watch.cancel()
        assert models.status == "failed"
        assert failures == ["told"]

    run(settings, test, load, on_failure=lambda: failures.append("told"))


def test_unknown_name_is_rejected(settings: Settings) -> None:
    """Only a served model's name gives a route."""

    async def test(models: LiveModels) -> None:
        assert models.route("colours").inputs == (models.classifiers[1].input_spec,)
        with pytest.raises(InvalidParameterError, match="send one of linear, colours"):
            models.route("resnet-8")

    run(settings, test)


def test_all_models_share_the_threads(settings: Settings) -> None:
    """With one thread, batches of two models that need a thread run one after the other."""
    running, most = 0, 0
    lock = threading.Lock()

    class SlowClassifier(Classifier):
        seconds_per_image = 1.0

        def classify(self, images: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            try:
                threading.Event().wait(0.02)
                return super().classify(images)
            finally:
                with lock:
                    running -= 1

    async def test(models: LiveModels) -> None:
        await asyncio.gather(*(versions(models) for _ in range(3)))
        assert most == 1

    run(settings, test, lambda folder: SlowClassifier(read_bundle(folder), "cpu"))


def test_one_hung_model_makes_the_process_stuck(settings: Settings) -> None:
    """If one of two models hangs, the process is stuck, and the model takes no more images."""
    released = threading.Event()
    predictors: list[Predictor] = []
    stuck: list[bool] = []

    def load(folder: Path) -> Classifier:
        return BreakableClassifier(read_bundle(folder), "cpu")

    async def test(models: LiveModels) -> None:
        predictors.append(Predictor(settings, models, threads=1))
        _, model = models
        model.self_test_timeout_seconds = 0.05
        assert isinstance(model.classifier, BreakableClassifier)
        model.classifier.released = released
        try:
            await asyncio.wait_for(model.self_test(model.classifier), 10)
        finally:
            released.set()
        assert stuck == [True]
        with pytest.raises(NotReadyError):
            model.current()

    run(settings, test, load, on_failure=lambda: stuck.append(predictors[0].is_stuck))


def test_images_that_wait_are_counted(settings: Settings) -> None:
    """The queue depth is the sum over the models, and over the decoder."""

    async def test(models: LiveModels) -> None:
        predictor = Predictor(settings, models, threads=1)
        route = models.route()
        sources = [ModelInput(np.zeros(spec.shape, np.uint8), spec, 1) for spec in route.inputs]
        slow = encode(noise(1000, 1000))
        waiting = [asyncio.create_task(route.classify(source)) for source in sources * 3]
        uploads = [asyncio.create_task(predictor.predict(slow)) for _ in range(9)]
        await asyncio.sleep(0)
        assert models.queue_depth == 6
        assert 6 + 9 - MAX_TOGETHER <= predictor.queue_depth <= 6 + 9
        await asyncio.gather(*waiting, *uploads)
        assert predictor.queue_depth == 0
        predictor.close()

    run(settings, test)


def test_failure_is_more_urgent_than_a_start(settings: Settings) -> None:
    """If one model has failed while the next one has not loaded yet, the service has failed."""

    def load(_: Path) -> Classifier:
        raise DeviceError("no device")

    async def test() -> None:
        models = LiveModels(settings, load, threads=1)
        first, second = models
        await first.start()
        assert [first.status, second.status, models.status] == ["failed", "starting", "failed"]
        models.close()

    asyncio.run(test())


def test_slow_load_of_one_model_does_not_delay_the_other(settings: Settings) -> None:
    """While the storage of one model hangs, the other is loaded again."""
    released, has_started = threading.Event(), threading.Event()

    def load(folder: Path) -> Classifier:
        if has_started.is_set() and folder.parent.name == "linear":
            assert released.wait(30)
        return load_classifier(folder, "cpu")

    async def test(models: LiveModels) -> None:
        has_started.set()
        grey, photos = models
        slow = asyncio.create_task(grey.reload())
        await asyncio.sleep(0.05)
        try:
            await asyncio.wait_for(photos.reload(), 10)
        finally:
            released.set()
        await slow

    run(settings, test, load)
