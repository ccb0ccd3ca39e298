"""A run that learns from photos: trained, resumed, calibrated, evaluated and exported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from scipy.special import softmax

from tests.training.data.photos.folders import choose_names, write_photo, write_worn_folder
from tests.training.fashion_mnist import SampleSource
from tests.training.making import make_config
from training.architectures.efficientnet_lite import load_lite0_weights
from training.assess.calibration import load_calibrated, load_calibration
from training.assess.photo_runs import calibrate_photo_run, evaluate_photo_run, stack_validation
from training.data.photos.collection import PhotoFolders, open_collection
from training.data.photos.found import FOUND_FILE, read_found
from training.errors import DataError, RunError
from training.export.bundle import export
from training.fit.answers import predict
from training.fit.distillation import Teachers
from training.fit.photo_batches import PhotoBatches
from training.fit.recipe import PhotoRecipe
from training.fit.runs import Config, load_model, read_config, read_history
from training.fit.training import resume, train

SOURCE = SampleSource()
TINY = PhotoRecipe(
    steps_per_epoch=1,
    photos_per_batch=2,
    worn_per_batch=2,
    uploads_per_batch=2,
    input_pixels=32,
    first_trained_block=15,
    validation_uploads=200,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> PhotoFolders:
    """Folders of two photos of training and one of validation, and of worn garments."""
    photos = tmp_path_factory.mktemp("photos")
    names = choose_names(2, validation=False) + choose_names(1, validation=True)
    for name in names:
        write_photo(photos, name)
    rows = [f"{name},{classes}\n" for name, classes in zip(names, ("3", "", "0"), strict=True)]
    (photos / "labels.csv").write_text("file,class_id\n" + "".join(rows))
    return PhotoFolders(photos, write_worn_folder(tmp_path_factory.mktemp("worn") / "folder"))


def plan_tiny(folders: PhotoFolders) -> Config:
    """Compose the configuration of a run of two epochs of one step."""
    return make_config(
        SOURCE, name="tiny", architecture="efficientnet-lite0", photos=folders, photo=TINY
    )


@pytest.fixture(scope="module")
def photo_run(folders: PhotoFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run that was calibrated and evaluated."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    train(plan_tiny(folders), SOURCE, run, photos=folders)
    calibrate_photo_run(run, SOURCE, folders)
    evaluate_photo_run(run, SOURCE, folders)
    return run


def test_early_blocks_keep_their_weights(photo_run: Path) -> None:
    """Training changes the last blocks and leaves the blocks before them as ImageNet made them."""
    config, trained = read_config(photo_run), load_model(photo_run)
    assert len(read_history(photo_run)) == config.recipe.epochs
    started = config.build()
    load_lite0_weights(started, None)
    for name, is_equal in (("blocks-3-expand_conv", True), ("blocks-15-expand_conv", False)):
        before, after = (model.get_layer(name).get_weights()[0] for model in (started, trained))
        assert np.array_equal(before, after) is is_equal


def test_bundle_answers_like_keras(folders: PhotoFolders, photo_run: Path, tmp_path: Path) -> None:
    """The exported graph gives the probabilities and distances of the calibrated network.

    Its activations are the logits before pooling: their mean and the bias give the probabilities.
    """
    bundle = export(photo_run, SOURCE, tmp_path, "tiny", "1")
    images, _ = stack_validation(read_config(photo_run), SOURCE, folders)
    assert images.shape[1:] == (32, 32, 3)
    outputs = load_calibrated(photo_run).predict(images[:3].astype(np.float32), verbose=0)
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    probabilities, distances, activations = session.run(None, {"image": images[:3]})
    # The file holds weights in float16.
    np.testing.assert_allclose(probabilities, softmax(outputs["logits"], axis=1), atol=2e-3)
    np.testing.assert_allclose(distances, outputs["distance"], atol=0.02)
    bias = load_model(photo_run).layers[-2].get_weights()[1][:-1]
    logits = activations.mean(axis=(2, 3)) + bias
    temperature = bundle.manifest.training["temperature"]
    np.testing.assert_allclose(softmax(logits / temperature, axis=1), probabilities, atol=1e-4)
    assert bundle.manifest.preprocessing == "letterbox"
    assert "Clothing Co-Parsing" in bundle.card


def test_calibration_sets_threshold_and_prediction_sets(photo_run: Path) -> None:
    """Nearly all validation pictures of a class are within the threshold."""
    calibration = load_calibration(photo_run)
    assert calibration is not None
    assert calibration.space is None
    assert calibration.minimum_probabilities.shape == (20, 10)


def test_interrupted_run_is_resumed(folders: PhotoFolders, photo_run: Path, tmp_path: Path) -> None:
    """A run that stopped before its last weights were saved is finished from its checkpoint."""
    run = tmp_path / "tiny"
    shutil.copytree(photo_run, run)
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match="pass their folders with --photos and --worn"):
        resume(run, SOURCE)
    resume(run, SOURCE, folders)
    finished, resumed = load_model(photo_run).get_weights(), load_model(run).get_weights()
    assert [weights.shape for weights in finished] == [weights.shape for weights in resumed]


def test_fine_tuned_run_learns_from_found_garments(
    folders: PhotoFolders, photo_run: Path, tmp_path: Path
) -> None:
    """The earlier network finds garments in photos without masks. Its input may be smaller."""
    larger = replace(TINY, input_pixels=64)
    config = make_config(
        SOURCE,
        name="larger",
        architecture="efficientnet-lite0",
        photos=folders,
        start_from=photo_run,
        photo=larger,
        fine_tunes=True,
        epochs=1,
    )
    run = tmp_path / "larger"
    train(config, SOURCE, run, start_from=photo_run, photos=folders)
    assert load_model(run).input_shape == (None, 64, 64, 3)
    found = read_found(run / FOUND_FILE, folders.worn)
    unmasked = folders.worn / choose_names(3, validation=False)[-1]
    assert [(item.file, item.classes) for item in found] == [
        (unmasked, (3,)),
        (unmasked, (5, 7, 9)),
    ]
    (run / "model.keras").unlink()
    table = (run / FOUND_FILE).read_text()
    (run / FOUND_FILE).write_text(table[:-12])
    with pytest.raises(DataError, match=r"found\.csv is missing or damaged"):
        resume(run, SOURCE, folders)
    (run / FOUND_FILE).write_text(table)
    resume(run, SOURCE, folders)
    assert read_found(run / FOUND_FILE, folders.worn) == found


def test_batches_are_reproducible(folders: PhotoFolders) -> None:
    """Equal seeds give equal batches, and epochs differ."""
    collection = open_collection(folders, SOURCE.training())
    first, again = (PhotoBatches(collection, TINY, 10, seed=1) for _ in range(2))
    images, targets = first[0]
    assert images.shape == (6, 32, 32, 3)
    assert targets.shape == (6, 11)
    assert (targets.sum(axis=1) >= 1).all()
    np.testing.assert_array_equal(images, again[0][0])
    again.epoch = 1
    assert not np.array_equal(images, again[0][0])


def test_teachers_answer_for_uploads(folders: PhotoFolders, small_run: Path) -> None:
    """The targets of uploads are the teacher's answers to the images of the data set."""
    collection = open_collection(folders, SOURCE.training())
    teachers = Teachers([small_run], 1)
    _, taught = PhotoBatches(collection, TINY, 10, 1, teachers)[0]
    _, untaught = PhotoBatches(collection, TINY, 10, 1)[0]
    np.testing.assert_array_equal(taught[:4], untaught[:4])
    drawn = collection.draw(2, 2, 2, np.random.default_rng((1, 0, 0)))
    samples = np.stack([each.sample for each in drawn if each.sample is not None])
    np.testing.assert_allclose(taught[4:, :10], predict(load_model(small_run), samples), atol=1e-5)
    assert not taught[4:, 10].any()


def test_run_is_calibrated_before_it_is_measured(
    folders: PhotoFolders, photo_run: Path, tmp_path: Path
) -> None:
    """Without a calibration the test set stays closed."""
    run = tmp_path / "tiny"
    names = shutil.ignore_patterns("calibration.npz", "metrics.json", "test-openings.csv")
    shutil.copytree(photo_run, run, ignore=names)
    with pytest.raises(RunError, match="was not calibrated: run"):
        evaluate_photo_run(run, SOURCE, folders)
    assert not (run / "test-openings.csv").exists()


def test_missing_photos_do_not_take_the_name(folders: PhotoFolders, tmp_path: Path) -> None:
    """If the photos cannot be read, the name of the run is still free."""
    config = plan_tiny(folders)
    moved = PhotoFolders(tmp_path / "moved", folders.worn)
    shutil.copytree(folders.photos, moved.photos)
    (moved.photos / "labels.csv").write_text("file,class_id\nmissing.png,1\n")
    config = replace(config, photos_sha256=moved.hash())
    with pytest.raises(DataError):
        train(config, SOURCE, tmp_path / "tiny", photos=moved)
    assert not (tmp_path / "tiny").exists()


def test_run_accepts_only_its_own_photos(
    folders: PhotoFolders, photo_run: Path, tmp_path: Path
) -> None:
    """Other photos, or none, are rejected with the option to pass."""
    other = PhotoFolders(tmp_path, folders.worn)
    config = read_config(photo_run)
    with pytest.raises(RunError, match="learns from other photos than those in"):
        config.check_photos(other)
    with pytest.raises(RunError, match="pass their folders with --photos and --worn"):
        config.check_photos(None)
