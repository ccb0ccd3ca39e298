"""The golden set: a run and its bundle answer it alike, and the run's log has the opening."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.fashion_mnist import SampleSource
from training.data.sources.idx import read_idx
from training.errors import RunError
from training.export.golden import write_golden
from training.fit.answers import predict
from training.fit.runs import OPENINGS_FILE, load_model


def test_run_and_bundle_answer_alike(small_run: Path, bundle_folder: Path, tmp_path: Path) -> None:
    """Keras' answers are those to the images beside them; ONNX Runtime's are the same."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    before = (run / OPENINGS_FILE).read_text().splitlines()
    for model, name in ((run, "keras"), (bundle_folder, "onnx")):
        write_golden(model, SampleSource(), tmp_path / "golden", name, count=20, png_count=3)
    keras, onnx = (np.load(tmp_path / "golden" / f"{name}.npy") for name in ("keras", "onnx"))
    images = read_idx(tmp_path / "golden" / "images-idx3-ubyte.gz")
    np.testing.assert_allclose(keras, predict(load_model(small_run), images), atol=1e-5)
    np.testing.assert_allclose(onnx, keras, atol=1e-4)
    assert len(list((tmp_path / "golden").glob("*.png"))) == 3
    opened = (run / OPENINGS_FILE).read_text().splitlines()
    assert len(opened) == len(before) + 1
    assert ",golden set," in opened[-1]


def test_missing_run_opens_nothing(tmp_path: Path) -> None:
    """A folder without a run gets no log of openings."""
    with pytest.raises(RunError, match=r"model\.keras is missing|is not a run"):
        write_golden(tmp_path, SampleSource(), tmp_path / "golden", "x", count=20, png_count=1)
    assert not (tmp_path / OPENINGS_FILE).exists()
