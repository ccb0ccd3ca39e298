"""The live model: what happens when a model fails or is replaced while it serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle import CARD_FILE, MANIFEST_FILE, MODEL_FILE, read_bundle
from service.errors import BundleError, DeviceError, InferenceError, NotReadyError
from service.inference.classification import Classification
from service.inference.classifier import Classifier, load_classifier
from service.inference.live_model import LOADS_ON_FAILED_DEVICE, LiveModel
from service.inference.models import LiveModels
from service.settings import Settings
from tests.service.bundles import write_linear_bundle
from tests.service.inference.models import started_models

IMAGE = np.full((20, 30), 7, np.uint8)
OFTEN = 0.01  # seconds between checks


class BreakableClassifier(Classifier):
    """A real classifier whose device can break, or hang until ``released`` is set."""

    broken = False
    released: threading.Event | None = None

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Fail if the device is broken; wait while it hangs."""
        if self.broken:
            raise RuntimeError("CUDA failure 999")
        if self.released is not None:
            assert self.released.wait(30)
        return super().classify(images)


def run(
    settings: Settings,
    test: Callable[[LiveModel], Coroutine[Any, Any, None]],
    load: Callable[[], Classifier] | None = None,
    **hooks: Any,
) -> None:
    """Run ``test`` with the only model of ``settings``, started."""
    load_any = None if load is None else lambda _: load()

    async def main() -> None:
        async with started_models(settings, load_any, **hooks) as models:
            (model,) = models
            await test(model)

    asyncio.run(main())


async def answer(model: LiveModel) -> str:
    """Classify an image; return the version that answered."""
    batched = await model.classify(model.current(), IMAGE)
    return batched.answer.manifest.version


async def wait_until(is_true: Callable[[], bool]) -> None:
    """Poll until ``is_true`` returns True, for conditions without an event."""
    async with asyncio.timeout(30):
        while not is_true():  # noqa: ASYNC110
            await asyncio.sleep(OFTEN)


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A folder of versions that holds version 1."""
    write_linear_bundle(tmp_path / "versions" / "1", version="1")
    return tmp_path / "versions"


def test_classifier_on_a_broken_device_is_replaced_once(linear_folder: Path) -> None:
    """After the device breaks, one caller gets an error, then a new classifier serves."""
    loaded: list[BreakableClassifier] = []

    def load() -> Classifier:
        loaded.append(BreakableClassifier(read_bundle(linear_folder), "cpu"))
        return loaded[-1]

    async def test(model: LiveModel) -> None:
        await answer(model)
        loaded[0].broken = True
        with pytest.raises(InferenceError):
            await answer(model)
        assert len(loaded) == 2
        assert model.status == "ready"
        await answer(model)

    run(Settings(models=(linear_folder,)), test, load)


@pytest.mark.parametrize("hangs", ["the self-test", "loading"])
def test_hung_device_ends_the_service(
    linear_folder: Path, caplog: pytest.LogCaptureFixture, hangs: str
) -> None:
    """If a self-test hangs, or the load after a failed one, only a new process can serve."""
    released = threading.Event()
    failures: list[str] = []
    loaded: list[BreakableClassifier] = []

    def load() -> Classifier:
        assert not loaded or released.wait(30)
        loaded.append(BreakableClassifier(read_bundle(linear_folder), "cpu"))
        return loaded[-1]

    async def test(model: LiveModel) -> None:
        model.self_test_timeout_seconds = model.load_timeout_seconds = 0.05
        if hangs == "loading":
            loaded[0].broken = True
        else:
            loaded[0].released = released
        try:
            async with asyncio.timeout(10):
                await model.self_test(loaded[0])
        finally:
            released.set()
        assert model.status == "failed"
        assert model.is_hung
        assert failures == ["failed"]
        assert f"{hangs} has not ended after 0.05 seconds" in caplog.text

    run(
        Settings(models=(linear_folder,)),
        test,
        load,
        on_failure=lambda: failures.append("failed"),
    )


def test_load_that_hangs_is_a_rejected_version(
    versions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the storage hangs while a newer version is loaded, the current version goes on."""
    released = threading.Event()
    loaded: list[Classifier] = []

    def load() -> Classifier:
        assert not loaded or released.wait(30)
        loaded.append(Classifier(read_bundle(versions / "1"), "cpu"))
        return loaded[-1]

    async def test(model: LiveModel) -> None:
        model.load_timeout_seconds = 0.05
        write_linear_bundle(versions / "2", version="2")
        try:
            async with asyncio.timeout(10):
                await model.reload()
        finally:
            released.set()
        assert await answer(model) == "1"
        assert "the new version is rejected" in caplog.text

    run(Settings(models=(versions,)), test, load)


def test_client_that_leaves_does_not_stop_the_replacement(linear_folder: Path) -> None:
    """The classifier is replaced even if the client that sent the failed image disconnects.

    Until the new classifier is loaded, the status is failed.
    """
    loaded: list[BreakableClassifier] = []
    leaves, left = threading.Event(), threading.Event()

    def load() -> Classifier:
        if loaded:
            leaves.set()
            assert left.wait(30)
        loaded.append(BreakableClassifier(read_bundle(linear_folder), "cpu"))
        return loaded[-1]

    async def test(model: LiveModel) -> None:
        loaded[0].broken = True
        request = asyncio.create_task(answer(model))
        await asyncio.to_thread(leaves.wait, 30)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert request.cancelled()
        assert model.classifier is None
        status_while_loading: str = model.status
        assert status_while_loading == "failed"
        left.set()
        await model.self_test(loaded[0])  # waits for the replacement
        assert model.status == "ready"
        await answer(model)

    run(Settings(models=(linear_folder,)), test, load)


@pytest.mark.parametrize("works_again", [True, False])
def test_idle_model_finds_a_broken_device(linear_folder: Path, *, works_again: bool) -> None:
    """An idle classifier finds a broken device. Until the device works again, uploads are rejected.

    If it does not in time, only a new process can serve.
    """
    first = BreakableClassifier(read_bundle(linear_folder), "cpu")
    loads: list[str] = []
    failed = asyncio.Event()

    def load() -> Classifier:
        loads.append("tried")
        if len(loads) == 1:
            return first
        if works_again and len(loads) == 4:
            return Classifier(read_bundle(linear_folder), "cpu")
        raise DeviceError("no device is left")

    async def test(model: LiveModel) -> None:
        watch = asyncio.create_task(model.watch())
        await answer(model)
        first.broken = True
        await wait_until(lambda: model.status == "failed")
        with pytest.raises(NotReadyError):
            model.current()
        assert not failed.is_set()
        if works_again:
            await wait_until(lambda: model.status == "ready")
            await answer(model)
            assert len(loads) == 4
        else:
            await asyncio.wait_for(failed.wait(), 30)
            assert len(loads) == 1 + LOADS_ON_FAILED_DEVICE
        assert model.has_lost_device != works_again
        assert failed.is_set() != works_again
        watch.cancel()

    settings = Settings(models=(linear_folder,), check_interval_seconds=OFTEN)
    run(settings, test, load, on_failure=failed.set)


def test_device_is_tried_again_beside_a_damaged_version(versions: Path) -> None:
    """If the device fails the older version and the newer one is damaged, the device counts."""
    write_linear_bundle(versions / "2", version="2")
    first = BreakableClassifier(read_bundle(versions / "1"), "cpu")
    loads: list[str] = []
    failures: list[str] = []

    def load() -> Classifier:
        loads.append("tried")
        if len(loads) % 2:
            raise BundleError("version 2 is damaged")
        if len(loads) > 2:
            raise InferenceError("the device fails")
        return first

    async def test(model: LiveModel) -> None:
        first.broken = True
        await model.self_test(first)
        assert len(loads) == 4
        assert model.status == "failed"
        assert not failures

    run(Settings(models=(versions,)), test, load, on_failure=lambda: failures.append("failed"))


def test_model_on_a_gpu_does_not_become_one_on_the_cpu(
    versions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the device ``auto``, a new version that finds no room on the GPU is rejected."""

    def load() -> Classifier:
        return load_classifier(versions, "cpu")

    async def test(model: LiveModel) -> None:
        assert model.classifier is not None
        model.classifier.device = "cuda"
        await model.reload()
        assert await answer(model) == "1"
        write_linear_bundle(versions / "2", version="2")
        await model.reload()
        assert await answer(model) == "1"
        assert "does not run on CUDA now" in caplog.text

    first = load()
    first.device = "cuda"
    loads = iter([first])
    run(Settings(models=(versions,)), test, lambda: next(loads, None) or load())


def test_unreadable_folder_does_not_end_the_watch(
    versions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the folder is unreadable, the loaded version serves. Later a newer one is loaded."""
    elsewhere = versions.with_name("elsewhere")

    def hide() -> None:
        versions.rename(elsewhere)
        versions.symlink_to("x" * 300)  # a name that is too long is an error even for root

    def show() -> None:
        versions.unlink()
        elsewhere.rename(versions)

    async def test(model: LiveModel) -> None:
        watch = asyncio.create_task(model.watch())
        await asyncio.sleep(0)  # let the watch start
        hide()
        await wait_until(lambda: "cannot be read" in caplog.text)
        assert await answer(model) == "1"
        show()
        write_linear_bundle(versions / "2", version="2")
        await wait_until(lambda: model.current().classifier.manifest.version == "2")
        watch.cancel()

    run(Settings(models=(versions,), check_interval_seconds=OFTEN), test)


def test_bad_version_is_tried_once(versions: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged newer version is tried once. The current one serves until a valid one arrives."""
    settings = Settings(models=(versions,), check_interval_seconds=OFTEN)
    loads = 0

    def load() -> Classifier:
        nonlocal loads
        loads += 1
        return load_classifier(versions, settings.device)

    async def test(model: LiveModel) -> None:
        watch = asyncio.create_task(model.watch())
        await asyncio.sleep(0)  # let the watch start
        bad = write_linear_bundle(versions.with_name("bad"), version="2").folder
        (bad / MODEL_FILE).write_bytes(b"damaged")
        bad.rename(versions / "2")
        await wait_until(lambda: "the new version is rejected" in caplog.text)
        await asyncio.sleep(10 * OFTEN)
        assert loads == 2
        assert await answer(model) == "1"
        assert model.status == "ready"
        good = write_linear_bundle(versions.with_name("good"), version="3").folder
        good.rename(versions / "3")
        await wait_until(lambda: model.current().classifier.manifest.version == "3")
        watch.cancel()

    run(settings, test, load)


@pytest.mark.parametrize("last", [MODEL_FILE, CARD_FILE, MANIFEST_FILE])
def test_version_that_is_copied_slowly_serves_at_last(
    versions: Path, caplog: pytest.LogCaptureFixture, last: str
) -> None:
    """A version whose manifest comes first is rejected with a reason, and serves when it is whole.

    One file first comes in part.
    """

    async def test(model: LiveModel) -> None:
        watch = asyncio.create_task(model.watch())
        await asyncio.sleep(0)  # let the watch start
        source = write_linear_bundle(versions.with_name("source"), version="2").folder
        copy = versions / "2"
        copy.mkdir()
        names = sorted((MANIFEST_FILE, MODEL_FILE, CARD_FILE), key=lambda name: name == last)
        for name in [*sorted(names[:2], key=lambda name: name != MANIFEST_FILE), last]:
            content = (source / name).read_bytes()
            (copy / name).write_bytes(content[: len(content) // 2])
            await asyncio.sleep(3 * OFTEN)
            assert await answer(model) == "1"
            (copy / name).write_bytes(content)
        await wait_until(lambda: model.current().classifier.manifest.version == "2")
        assert "tried again when its files change" in caplog.text
        loaded = caplog.text.count("serves on")
        await asyncio.sleep(5 * OFTEN)
        assert caplog.text.count("serves on") == loaded
        watch.cancel()

    with caplog.at_level(logging.INFO):
        run(Settings(models=(versions,), check_interval_seconds=OFTEN), test)


@pytest.mark.parametrize("missing", [MODEL_FILE, CARD_FILE, MANIFEST_FILE])
def test_start_passes_over_an_incomplete_version(
    versions: Path, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    """The newest complete version serves, the log names the other, and it serves when complete."""
    write_linear_bundle(versions / "0", version="0")
    newest = write_linear_bundle(versions / "2", version="2").folder
    content = (newest / missing).read_bytes()
    (newest / missing).write_bytes(content[: len(content) // 2])
    failures: list[str] = []

    async def test(model: LiveModel) -> None:
        watch = asyncio.create_task(model.watch())
        assert model.status == "ready"
        assert await answer(model) == "1"
        assert str(newest / missing) in caplog.text
        logged = len(caplog.records)
        await asyncio.sleep(5 * OFTEN)
        assert len(caplog.records) == logged
        (newest / missing).write_bytes(content)
        await wait_until(lambda: model.current().classifier.manifest.version == "2")
        watch.cancel()

    settings = Settings(models=(versions,), check_interval_seconds=OFTEN)
    run(settings, test, on_failure=lambda: failures.append("told"))
    assert not failures


def test_start_without_a_complete_version_fails(
    versions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If no version can be loaded, the start fails with the newest version's error alone."""
    newest = write_linear_bundle(versions / "2", version="2").folder
    for version in (newest, versions / "1"):
        (version / MODEL_FILE).write_bytes(b"half")
    failures: list[str] = []

    async def test(model: LiveModel) -> None:
        assert model.status == "failed"

    run(Settings(models=(versions,)), test, on_failure=lambda: failures.append("told"))
    assert failures == ["told"]
    (record,) = caplog.records
    assert str(newest / MODEL_FILE) in record.getMessage()


def test_failed_classifier_is_replaced_by_the_newest_complete_version(versions: Path) -> None:
    """A device fails while a newer version is incomplete: the older version is loaded again."""

    async def test(model: LiveModel) -> None:
        classifier = model.classifier
        assert isinstance(classifier, BreakableClassifier)
        newest = write_linear_bundle(versions / "2", version="2").folder
        (newest / MODEL_FILE).write_bytes(b"half")
        classifier.broken = True
        with pytest.raises(InferenceError):
            await answer(model)
        assert model.status == "ready"
        assert await answer(model) == "1"

    async def main() -> None:
        def load(version: Path) -> Classifier:
            return BreakableClassifier(read_bundle(version), "cpu")

        async with started_models(Settings(models=(versions,)), load) as models:
            (model,) = models
            await test(model)

    asyncio.run(main())


def test_current_version_serves_while_the_next_one_loads(versions: Path) -> None:
    """Requests are answered by the old version until the new one has passed its self-test."""
    settings = Settings(models=(versions,))
    loading, answered = threading.Event(), threading.Event()

    def load() -> Classifier:
        classifier = load_classifier(versions, settings.device)
        if classifier.manifest.version == "2":
            loading.set()
            assert answered.wait(30)
        return classifier

    async def test(model: LiveModel) -> None:
        write_linear_bundle(versions / "2", version="2")
        reload = asyncio.create_task(model.reload())
        await asyncio.to_thread(loading.wait, 30)
        assert await answer(model) == "1"
        answered.set()
        await reload
        assert await answer(model) == "2"

    run(settings, test, load)


@pytest.fixture
def _no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collector")
def test_replaced_classifier_is_freed_without_the_garbage_collector(linear_folder: Path) -> None:
    """A swap frees the old classifier even if the garbage collector is off."""

    async def test(model: LiveModel) -> None:
        await answer(model)
        old = weakref.ref(model.current().classifier)
        await model.reload()
        await wait_until(lambda: old() is None)  # the loading thread drops its reference last

    run(Settings(models=(linear_folder,), device="cpu", threads=1), test)


def test_status_follows_the_model(linear_folder: Path) -> None:
    """The status goes from starting to ready to draining. A draining model still answers."""

    async def test(model: LiveModel) -> None:
        statuses.append(model.status)
        model.drain()
        statuses.append(model.status)
        await answer(model)

    settings = Settings(models=(linear_folder,), device="cpu")
    load = partial(load_classifier, device="cpu")
    statuses = [LiveModels(settings, load, threads=1).status]
    run(settings, test)
    assert statuses == ["starting", "ready", "draining"]


def test_unexpected_error_while_loading_is_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Any error at the start fails the model. An unexpected error is logged with its traceback."""
    failures: list[str] = []

    async def test(model: LiveModel) -> None:
        assert model.status == "failed"
        failures.append("failed")

    def load_missing() -> Classifier:
        raise BundleError(f"{tmp_path / CARD_FILE} is missing")

    def load_defect() -> Classifier:
        raise ZeroDivisionError("a defect")

    for load in (load_missing, load_defect):
        run(Settings(models=(tmp_path,)), test, load, on_failure=lambda: failures.append("told"))
    assert failures == ["told", "failed"] * 2
    assert [record.exc_info is None for record in caplog.records] == [True, False]


def test_busy_model_is_not_tested(linear_folder: Path) -> None:
    """A model that answers between two checks needs no self-test."""
    tests = []

    class Counted(Classifier):
        def self_test(self) -> None:
            tests.append(self)
            super().self_test()

    async def test(model: LiveModel) -> None:
        watch = asyncio.create_task(model.watch())
        for _ in range(20):
            await answer(model)
            await asyncio.sleep(0.05)
        watch.cancel()
        assert len(tests) == 1  # at the load

    run(
        Settings(models=(linear_folder,), check_interval_seconds=0.5),
        test,
        lambda: Counted(read_bundle(linear_folder), "cpu"),
    )
