"""Training: a run is documented, repeatable and resumable, and never opens the test set."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.training.fashion_mnist import ROOT, SampleSource
from tests.training.making import make_config
from training.data.samples import Samples
from training.errors import RunError
from training.fit.answers import predict
from training.fit.runs import load_model, read_config, read_history
from training.fit.training import resume, train

SOURCE = SampleSource()


class ClosedTestSet(SampleSource):
    """The sample, with a test set that must not be read."""

    def test(self) -> Samples:
        """Fail."""
        raise AssertionError("the test set was opened")


class FewerImages(SampleSource):
    """The sample with 150 images for training."""

    def training(self) -> Samples:
        """The first 150."""
        whole = super().training()
        return Samples(whole.images[:150], whole.labels[:150])


def weights(folder: Path) -> list[Any]:
    """Read the weights of a finished run."""
    return list(load_model(folder).get_weights())


def same(first: list[Any], second: list[Any]) -> bool:
    """Whether two lists of weights are equal to the last bit."""
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def test_run_folder_documents_the_run(small_run: Path) -> None:
    """A run folder holds configuration, history of each epoch, curves, weights and versions."""
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
    """Training reads only the training set."""
    source = ClosedTestSet()
    train(make_config(source, name="run", epochs=1), source, tmp_path / "run")


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    """Equal seeds give equal weights to the last bit, and another seed gives others."""
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        train(make_config(SOURCE, name=name, seed=seed, epochs=1), SOURCE, tmp_path / name)
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    assert not same(weights(tmp_path / "first"), weights(tmp_path / "other"))


# Everything that a resumed run must restore: dropout, augmentation, schedule, momentum, average and
# early stopping.
DEMANDING: dict[str, Any] = {
    "architecture": "cnn-4conv",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "onecycle",
    "augmentation": "modern-cutmix",
    "label_smoothing": 0.1,
    "ema_momentum": 0.9,
    "early_stopping_patience": 5,
    "epochs": 3,
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
    """A killed and resumed run has the weights and history of an uninterrupted run."""
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


def test_continued_run_starts_after_the_last_epoch(tmp_path: Path, small_run: Path) -> None:
    """A continued run keeps weights and optimizer, and counts epochs from the earlier run."""
    recipe: dict[str, Any] = {"epochs": 1, "continues": True, "augmentation": "tutorial-radians"}
    with pytest.raises(RunError, match="pass its folder with --from"):
        make_config(SOURCE, name="more", **recipe)
    config = make_config(SOURCE, name="more", start_from=small_run, **recipe)
    train(config, SOURCE, tmp_path / "more", start_from=small_run)
    (row,) = read_history(tmp_path / "more")
    assert row["epoch"] == 4
    assert row["val_loss"] < read_history(small_run)[0]["val_loss"]
    continued = keras.saving.load_model(tmp_path / "more" / "checkpoints" / "1.keras")
    assert int(continued.optimizer.iterations) == 4 * 5


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"architecture": "cnn-3conv"}, "network"),
        ({"validation_fraction": 0.3}, "split of the data"),
        ({"source": FewerImages()}, "sha256 of the data"),
    ],
)
def test_run_that_does_not_fit_is_rejected(
    small_run: Path, changed: dict[str, Any], what: str
) -> None:
    """A run cannot go on from one of another network, data or split."""
    settings = {"source": SOURCE, "fine_tunes": True, **changed}
    with pytest.raises(RunError, match=f"has another {what} than this run"):
        make_config(name="more", start_from=small_run, **settings)


def test_early_stopping_uses_validation(tmp_path: Path) -> None:
    """A run stops after the recipe's number of epochs without a lower validation loss."""
    standing = make_config(
        SOURCE, name="run", epochs=9, learning_rate=0.0, early_stopping_patience=2
    )
    train(standing, SOURCE, tmp_path / "run")
    assert len(read_history(tmp_path / "run")) == 3


def test_average_is_saved(tmp_path: Path) -> None:
    """The model holds the averaged weights, and the checkpoint keeps the raw weights.

    The last row of the history has the figures of the model that is saved.
    """
    train(make_config(SOURCE, name="run", epochs=1, ema_momentum=0.99), SOURCE, tmp_path / "run")
    raw = keras.saving.load_model(tmp_path / "run" / "checkpoints" / "1.keras").get_weights()
    assert not same(raw, weights(tmp_path / "run"))
    _, validation = read_config(tmp_path / "run").split(SOURCE.training())
    answers = predict(load_model(tmp_path / "run"), validation.images).argmax(axis=1)
    (row,) = read_history(tmp_path / "run")
    assert row["val_accuracy"] == pytest.approx((answers == validation.labels).mean())


def test_mixed_precision_trains_float32_weights(tmp_path: Path) -> None:
    """Mixed precision computes in bfloat16 and keeps weights, logits and later models float32."""
    train(make_config(SOURCE, name="run", precision="mixed_bfloat16"), SOURCE, tmp_path / "run")
    mixed = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert {layer.compute_dtype for layer in mixed.layers[2:-1]} == {"bfloat16"}
    assert {str(variable.dtype) for variable in mixed.weights} == {"float32"}
    assert {layer.compute_dtype for layer in load_model(tmp_path / "run").layers} == {"float32"}
    assert mixed.layers[-1].compute_dtype == "float32"


def test_existing_folder_is_not_overwritten(small_run: Path) -> None:
    """An existing folder, a finished run and a missing checkpoint give errors."""
    with pytest.raises(RunError, match="exists already: finish it with --resume"):
        train(make_config(SOURCE, name="small"), SOURCE, small_run)
    with pytest.raises(RunError, match="has ended already"):
        resume(small_run, SOURCE)
    with pytest.raises(RunError, match="holds no checkpoint"):
        resume(small_run.parent / "nothing", SOURCE)


def test_other_data_is_rejected(small_run: Path) -> None:
    """A run cannot split other samples than its own. The error has both hashes."""
    config = read_config(small_run)
    with pytest.raises(RunError, match=rf"{SOURCE.test().sha256()}, .* {config.data_sha256}"):
        config.split(SOURCE.test())
