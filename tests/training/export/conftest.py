"""Fixtures of the export tests: a bundle of the small run, and its graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from service.bundle import read_bundle
from tests.training.fashion_mnist import SampleSource
from training.export.bundle import export


@pytest.fixture(scope="session")
def bundle_folder(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the bundle exported from the small run."""
    models = tmp_path_factory.mktemp("models")
    return export(small_run, SampleSource(), models, "small", "1").folder


@pytest.fixture
def graph(bundle_folder: Path) -> onnx.ModelProto:
    """A copy of the exported graph, which tests may change."""
    return onnx.load_from_string(read_bundle(bundle_folder).model)
