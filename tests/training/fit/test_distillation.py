"""Distillation: teachers are runs or bundles, and students learn their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.service.bundles import write_linear_bundle
from tests.training.fashion_mnist import SampleSource
from tests.training.making import make_config
from training.errors import RunError
from training.export.bundle import export
from training.fit.answers import predict
from training.fit.distillation import Teachers
from training.fit.losses import DistillationLoss
from training.fit.runs import load_model, read_config, read_history
from training.fit.training import train

SOURCE = SampleSource()
IMAGES = SOURCE.test().images


def test_teachers_are_averaged_and_softened(small_run: Path, tmp_path: Path) -> None:
    """A run, its bundle and their mean answer alike. Softening equals dividing the logits."""
    bundle = export(small_run, SOURCE, tmp_path, "small", "1").folder
    pixels = IMAGES.astype(np.float32)
    expected = predict(load_model(small_run), IMAGES)
    for folders in ([small_run], [bundle], [small_run, bundle]):
        np.testing.assert_allclose(Teachers(folders, 1).answer(pixels), expected, atol=1e-5)
    softened = Teachers([small_run], 4).answer(pixels)
    np.testing.assert_allclose(softened.sum(axis=1), 1, rtol=1e-5)
    divided = np.log(expected) / 4
    np.testing.assert_allclose(
        softened, np.exp(divided) / np.exp(divided).sum(1, keepdims=True), atol=1e-5
    )


def test_mirrored_teachers_average_both_orientations(small_run: Path) -> None:
    """Mirrored teachers give the mean answer to an image and its mirror image."""
    teachers = Teachers([small_run], 1, mirrored=True)
    pixels = IMAGES.astype(np.float32)
    model = load_model(small_run)
    expected = (predict(model, IMAGES) + predict(model, IMAGES[:, :, ::-1])) / 2
    np.testing.assert_allclose(teachers.answer(pixels), expected, atol=1e-5)
    np.testing.assert_allclose(teachers.answer(pixels[:, :, ::-1]), expected, atol=1e-5)


def test_loss_is_cross_entropy_and_can_be_saved() -> None:
    """At temperature 1 the loss is the cross-entropy. A saved loss keeps its temperature."""
    logits, targets = (
        np.array([[1.0, 2.0, -1.0]], np.float32),
        np.array([[0.2, 0.7, 0.1]], np.float32),
    )
    expected = -(targets * (logits - np.log(np.exp(logits).sum()))).sum()
    assert float(DistillationLoss()(targets, logits)) == pytest.approx(expected, rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(DistillationLoss(3.0)))
    assert float(again(targets, logits)) == pytest.approx(
        float(DistillationLoss(3.0)(targets, logits))
    )
    assert float(again(targets, logits)) != pytest.approx(expected, rel=0.1)


def test_student_learns_from_its_teacher(small_run: Path, tmp_path: Path) -> None:
    """A student learns to answer like its teacher, and its run names the teacher."""
    config = make_config(
        SOURCE,
        name="student",
        architecture="mlp-64-64",
        teachers=[small_run],
        epochs=8,
        distillation_temperature=2.0,
    )
    train(config, SOURCE, tmp_path / "student")
    assert read_config(tmp_path / "student").teachers == (small_run.as_posix(),)
    images = SOURCE.training().images
    agreed = predict(load_model(tmp_path / "student"), images).argmax(1) == predict(
        load_model(small_run), images
    ).argmax(1)
    assert agreed.mean() > 0.6
    assert (
        read_history(tmp_path / "student")[-1]["loss"]
        < read_history(tmp_path / "student")[0]["loss"]
    )


def test_unsuitable_teachers_are_rejected(linear_folder: Path, tmp_path: Path) -> None:
    """A teacher of other classes or other images, and a folder without a model, are named."""
    names, answer = SOURCE.class_names, (0.1,) * 10
    bundle = write_linear_bundle(tmp_path / "other", class_names=names, self_test=answer)
    for teacher in (linear_folder, tmp_path, Path("nowhere"), bundle.folder):
        with pytest.raises(RunError, match=str(teacher)):
            make_config(SOURCE, name="student", teachers=[teacher], distillation_temperature=1.0)


def test_fine_tuning_takes_only_the_weights(small_run: Path, tmp_path: Path) -> None:
    """Fine-tuning takes the weights of another run, and starts with a new optimizer."""
    recipe: dict[str, Any] = {
        "fine_tunes": True,
        "epochs": 1,
        "learning_rate": 0.0,
        "optimizer": "sgd",
    }
    config = make_config(SOURCE, name="tuned", start_from=small_run, **recipe)
    train(config, SOURCE, tmp_path / "tuned", start_from=small_run)
    first, second = (
        load_model(small_run).get_weights(),
        load_model(tmp_path / "tuned").get_weights(),
    )
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    tuned = keras.saving.load_model(tmp_path / "tuned" / "checkpoints" / "1.keras")
    assert isinstance(tuned.optimizer, keras.optimizers.SGD)
    assert int(tuned.optimizer.iterations) == 5


def test_recipe_decides_what_is_needed(small_run: Path) -> None:
    """Missing and unused teachers and earlier runs give errors."""
    with pytest.raises(RunError, match="needs a teacher: pass a run or bundle with --teacher"):
        make_config(SOURCE, name="student", distillation_temperature=1.0)
    with pytest.raises(RunError, match="uses no teacher: leave --teacher out"):
        make_config(SOURCE, name="student", teachers=[small_run])
    with pytest.raises(RunError, match="pass its folder with --from"):
        make_config(SOURCE, name="tuned", fine_tunes=True)
    with pytest.raises(RunError, match="leave --from out"):
        make_config(SOURCE, name="new", start_from=small_run)
