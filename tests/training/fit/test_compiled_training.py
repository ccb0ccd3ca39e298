"""Compiled training: it runs on JAX without TensorFlow, and TensorFlow reads what it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from PIL import Image

from service.bundle import read_bundle
from tests.service.bundles import linear_model, write_linear_bundle
from tests.training.fashion_mnist import ROOT, SampleSource, sample
from tests.training.making import make_config
from training.assess.calibration import calibrate
from training.assess.evaluation import evaluate
from training.errors import RunError
from training.export.bundle import export
from training.fit.answers import predict
from training.fit.compiled_training import descend, find_obstacle
from training.fit.recipe import Recipe
from training.fit.runs import load_model, read_config, read_history
from training.fit.training import resume, train

SOURCE = SampleSource()
IMAGES = SOURCE.test().images

# Keras loads TensorFlow on any backend if it is installed. A GPU machine with JAX does not have it.
WITHOUT_TENSORFLOW = """
import sys

class NoTensorFlow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTensorFlow)
"""
COMMAND = f"{WITHOUT_TENSORFLOW}from training.__main__ import main; main()"
TEACHER_AND_STUDENT = f"""
{WITHOUT_TENSORFLOW}
from pathlib import Path
import numpy as np
from tests.training.fashion_mnist import SampleSource
from tests.training.making import make_config
from training.fit.answers import predict
from training.fit.runs import load_model
from training.fit.training import train

runs, source = Path(sys.argv[1]), SampleSource()
recipe = dict(optimizer="sgd", momentum=0.9, weight_decay=1e-3, ema_momentum=0.8)
taught = dict(distillation_temperature=2.0, teachers_see_mirrored=True, augmentation="fmix")
teacher = dict(
    name="teacher", epochs=12, learning_rate=0.05, schedule="onecycle", augmentation="flip-shift",
)
student = dict(
    name="student", architecture="mlp-64-64", teachers=[runs / "teacher"], epochs=20,
    learning_rate=0.02, precision="mixed_bfloat16", **taught,
)
for settings in (teacher, student):
    config = make_config(source, **settings, **recipe)
    train(config, source, runs / config.name)
    answers = predict(load_model(runs / config.name), source.test().images)
    np.save(runs / config.name / "answers.npy", answers)
"""


def run_on_jax(code: str, *words: str | Path) -> str:
    """Run Python code with Keras on JAX in a new process, and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a teacher with dropout, and of a student that learned from it, both from JAX."""
    folder = tmp_path_factory.mktemp("runs")
    run_on_jax(TEACHER_AND_STUDENT, folder)
    return folder


def test_history_shows_that_it_learns(runs: Path) -> None:
    """Each epoch has a row, the learning rate ends at zero, and accuracies are above chance."""
    history = read_history(runs / "teacher")
    assert [row["epoch"] for row in history] == list(range(1, 13))
    assert history[-1]["learning_rate"] < 0.001 < max(row["learning_rate"] for row in history)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 0.5
    assert history[-1]["val_accuracy"] > 0.4
    assert read_config(runs / "teacher").made_by["keras_backend"] == "jax"


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_tensorflow_answers_like_jax(runs: Path, name: str) -> None:
    """The saved weights give the same probabilities on TensorFlow and JAX."""
    answers = predict(load_model(runs / name), IMAGES)
    np.testing.assert_allclose(answers, np.load(runs / name / "answers.npy"), atol=1e-4)


def test_student_answers_like_its_teacher(runs: Path) -> None:
    """A student that learned on mixed views agrees with its teacher about plain images."""
    images = SOURCE.training().images
    teacher, student = (
        predict(load_model(runs / name), images).argmax(axis=1) for name in ("teacher", "student")
    )
    assert (teacher == student).mean() > 0.6


def test_run_is_calibrated_evaluated_and_exported(runs: Path, tmp_path: Path) -> None:
    """TensorFlow makes a bundle from a run of JAX."""
    run = tmp_path / "run"
    shutil.copytree(runs / "teacher", run)
    calibrate(run, SOURCE)
    assert evaluate(run, SOURCE)["test"]["accuracy"] > 0.4
    bundle = read_bundle(export(run, SOURCE, tmp_path / "models", "jax", "1").folder)
    assert bundle.manifest.training["keras_backend"] == "jax"


def test_minutes_set_the_number_of_epochs(tmp_path: Path) -> None:
    """The command measures the speed, trains for the given time and notes both."""
    for number, (image, label) in enumerate(zip(sample().images, sample().labels, strict=True)):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    options = ("--data", tmp_path / "images", "--runs", tmp_path, "--name", "run")
    words = ("train", "mlp-64-64", "--recipe", "modern-sgd", "--augmentation", "mixup")
    printed = run_on_jax(COMMAND, *words, *options, "--minutes", "0.1")
    config, history = read_config(tmp_path / "run"), read_history(tmp_path / "run")
    assert config.made_by["speed"]["minutes"] == 0.1
    assert config.made_by["speed"]["seconds_per_epoch"] > 0
    assert f"{config.recipe.epochs} epochs: minutes 0.1" in printed
    assert 0 < len(history) <= config.recipe.epochs
    assert sum(row["seconds"] for row in history[:-1]) <= 6
    assert (tmp_path / "run" / "model.keras").exists()


def test_minutes_need_the_compiled_step(tmp_path: Path) -> None:
    """Minutes on another backend give an error, and no run."""
    config = make_config(SOURCE, name="run")
    with pytest.raises(RunError, match="KERAS_BACKEND=tensorflow"):
        train(config, SOURCE, tmp_path / "run", minutes=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "obstacle"),
    [
        ({}, None),
        ({"optimizer": "adam"}, "optimizer adam"),
        ({"augmentation": "deployment"}, "augmentation deployment"),
        ({"steps_per_epoch": 3}, "a number of steps per epoch"),
        ({"early_stopping_patience": 3}, "early stopping"),
    ],
)
def test_obstacle_is_named(recipe: dict[str, Any], obstacle: str | None) -> None:
    """A run that only Keras' fit can train is recognized by its recipe."""
    config = make_config(SOURCE, name="run", **{"optimizer": "sgd", **recipe})
    assert find_obstacle(config) == obstacle


def test_teacher_without_weights_of_keras_is_an_obstacle(tmp_path: Path) -> None:
    """A bundle cannot teach in the compiled step, because its graph is ONNX."""
    bundle = write_linear_bundle(
        tmp_path / "teacher",
        model=linear_model(10, 28, 28),
        class_names=SOURCE.class_names,
        input_size=(28, 28),
        self_test=(0.1,) * 10,
    )
    teachers = [bundle.folder]
    config = make_config(
        SOURCE, name="run", teachers=teachers, optimizer="sgd", distillation_temperature=1.0
    )
    assert find_obstacle(config) == f"teacher {bundle.folder.as_posix()}, which is not a run"


def test_unfinished_run_keeps_its_weights(runs: Path, tmp_path: Path) -> None:
    """A run without its last weights is not resumed, and the error names its checkpoint."""
    run = tmp_path / "run"
    shutil.copytree(runs / "student", run)
    (run / "checkpoints").mkdir()
    (run / "model.keras").rename(run / "checkpoints" / "7.keras")
    with pytest.raises(RunError, match=r"copy .*7\.keras to .*model\.keras"):
        resume(run, SOURCE)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_equals_keras(momentum: float) -> None:
    """Two steps move weights like Keras' SGD with decay and Nesterov's momentum."""
    recipe = Recipe("sgd", 0.1, momentum=momentum, weight_decay=0.01)
    variable = keras.Variable(np.array([1.0, -2.0], np.float32))
    optimizer = recipe.make_optimizer(2)
    weights, velocities = [jnp.array([1.0, -2.0])], [jnp.zeros(2)]
    for gradient in ([0.5, 1.0], [-1.0, 3.0]):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        gradients = [jnp.array(gradient)]
        weights, velocities = descend(recipe, jnp.array(0.1), weights, velocities, gradients)
    np.testing.assert_allclose(weights[0], np.asarray(variable), rtol=1e-6)
