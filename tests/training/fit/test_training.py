"""Training: what a run leaves behind, that it can be repeated and resumed, and that it stays off the test set."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.training.fashion_mnist import ROOT, SampleSource
from tests.training.making import make_config
from training.data.samples import Samples
from training.errors import RunError
from training.fit.runs import load_model, read_config, read_history
from training.fit.training import Batches, resume, train

SOURCE = SampleSource()


class ClosedTestSet(SampleSource):
    """The sample with a test set that must not be read."""

    def test(self) -> Samples:
        """Fail."""
        raise AssertionError("the test set was opened")


def weights(folder: Path) -> list[Any]:
    """Read the weights of a finished run."""
    return list(load_model(folder).get_weights())


def same(first: list[Any], second: list[Any]) -> bool:
    """Whether two lists of weights are the same to the last bit."""
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def test_run_folder_says_how_it_was_made(small_run: Path) -> None:
    """A run folder has its configuration, one row of history an epoch, curves, weights and what made it."""
    config = read_config(small_run)
    assert config.data_sha256 == SOURCE.training().sha256()
    assert set(config.made_by) == {"git_commit", "python", "versions", "keras_backend", "machine"}
    assert "keras" in config.made_by["versions"]
    assert [row["epoch"] for row in read_history(small_run)] == [1, 2, 3]
    assert set(read_history(small_run)[0]) >= {
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
    }
    assert (small_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sum(w.size for w in weights(small_run)) == config.parameters


def test_training_never_opens_the_test_set(tmp_path: Path) -> None:
    """Training reads the training set alone."""
    source = ClosedTestSet()
    train(make_config(source, name="run", epochs=1), source, tmp_path / "run")


def test_same_seed_gives_same_weights(tmp_path: Path) -> None:
    """The same seed gives the same weights to the last bit, another seed others."""
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        train(make_config(SOURCE, name=name, seed=seed, epochs=1), SOURCE, tmp_path / name)
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    assert not same(weights(tmp_path / "first"), weights(tmp_path / "other"))


# Everything that a resumed run must find again: dropout, augmentation, schedule, momentum, average, early stopping.
DEMANDING: dict[str, Any] = {
    "architecture": "cnn-4conv",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "onecycle",
    "augmentation": "modern-cutmix",
    "label_smoothing": 0.1,
    "ema_momentum": 0.9,
    "early_stopping_patience": 5,
    "epochs": 4,
}
TRAIN_AGAIN = """
import sys
from pathlib import Path
from tests.training.fashion_mnist import ROOT, SampleSource
from training.fit.runs import read_config
from training.fit.training import train
train(read_config(Path(sys.argv[1])), SampleSource(), Path(sys.argv[2]))
"""


def test_killed_and_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """A run whose process is killed and that is resumed has the same weights and history, to the last bit."""
    config = make_config(SOURCE, name="run", **DEMANDING)
    train(config, SOURCE, tmp_path / "whole")
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN_AGAIN, tmp_path / "whole", killed], cwd=ROOT
    )
    while not (killed / "checkpoints" / "2.keras").exists():
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "model.keras").exists()
    resume(killed, SOURCE)
    assert same(weights(killed), weights(tmp_path / "whole"))
    for again, row in zip(read_history(killed), read_history(tmp_path / "whole"), strict=True):
        assert {**again, "seconds": 0} == {**row, "seconds": 0}


def test_continued_run_starts_from_the_last_epoch(tmp_path: Path, small_run: Path) -> None:
    """A run that continues another goes on from its weights and optimizer, and counts its epochs on."""
    recipe: dict[str, Any] = {"epochs": 1, "continues": True, "augmentation": "tutorial-radians"}
    with pytest.raises(RunError, match="name its folder with --from"):
        make_config(SOURCE, name="more", **recipe)
    config = make_config(SOURCE, name="more", start_from=small_run, **recipe)
    train(config, SOURCE, tmp_path / "more", start_from=small_run)
    (row,) = read_history(tmp_path / "more")
    assert row["epoch"] == 4
    assert row["val_loss"] < read_history(small_run)[0]["val_loss"]
    continued = keras.saving.load_model(tmp_path / "more" / "checkpoints" / "1.keras")
    assert int(continued.optimizer.iterations) == 4 * 5


def test_early_stopping_looks_at_validation(tmp_path: Path) -> None:
    """A run stops once the validation loss has not fallen for as many epochs as the recipe says."""
    standing = make_config(
        SOURCE, name="run", epochs=9, learning_rate=0.0, early_stopping_patience=2
    )
    train(standing, SOURCE, tmp_path / "run")
    assert len(read_history(tmp_path / "run")) == 3


def test_average_is_what_is_saved(tmp_path: Path) -> None:
    """With an average of the weights the model is the average, while the checkpoint keeps the raw weights too."""
    train(make_config(SOURCE, name="run", epochs=1, ema_momentum=0.99), SOURCE, tmp_path / "run")
    raw = keras.saving.load_model(tmp_path / "run" / "checkpoints" / "1.keras").get_weights()
    assert not same(raw, weights(tmp_path / "run"))


def test_mixed_precision_trains_float32_weights(tmp_path: Path) -> None:
    """In mixed_bfloat16 layers compute in bfloat16, weights and logits stay float32, later models are float32."""
    train(make_config(SOURCE, name="run", precision="mixed_bfloat16"), SOURCE, tmp_path / "run")
    mixed = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert {layer.compute_dtype for layer in mixed.layers[2:-1]} == {"bfloat16"}
    assert {str(variable.dtype) for variable in mixed.weights} == {"float32"}
    assert {layer.compute_dtype for layer in load_model(tmp_path / "run").layers} == {"float32"}
    assert mixed.layers[-1].compute_dtype == "float32"


def test_stream_of_steps_uses_every_image_equally_often() -> None:
    """With steps_per_epoch the batches are full and run through whole reshuffled passes."""
    samples = Samples(np.arange(10, dtype=np.uint8)[:, None, None], np.zeros(10, np.int64))
    batches = Batches(samples, make_config(SOURCE, name="run", batch_size=4, steps_per_epoch=5))
    seen = []
    for batches.epoch in (0, 1):
        seen += [int(pixel) for index in range(5) for pixel in batches[index][0].ravel()]
    assert [sorted(seen[start : start + 10]) for start in (0, 10, 20, 30)] == [list(range(10))] * 4
    assert seen[:10] != seen[10:20]


def test_existing_folder_is_not_overwritten(small_run: Path) -> None:
    """Training into an existing folder is refused, and so is resuming a run that ended or has no checkpoint."""
    with pytest.raises(RunError, match="exists already: finish it with --resume"):
        train(make_config(SOURCE, name="small"), SOURCE, small_run)
    with pytest.raises(RunError, match="has ended already"):
        resume(small_run, SOURCE)
    with pytest.raises(RunError, match="holds no checkpoint"):
        resume(small_run.parent / "nothing", SOURCE)


def test_other_data_than_the_run_was_made_with_is_refused(small_run: Path) -> None:
    """Splitting other samples by a run's configuration gives an error with both hashes."""
    config = read_config(small_run)
    with pytest.raises(RunError, match=rf"{config.data_sha256}, this is {SOURCE.test().sha256()}"):
        config.split(SOURCE.test())
