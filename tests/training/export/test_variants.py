"""Variants: int8 and float16 graphs answer like float32, and the page shows their figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.training.fashion_mnist import SampleSource
from training.export.bundle import export
from training.export.variants import Variant, compare_variants, make_variants, render_variants

SOURCE = SampleSource()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # weights below float16's range
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_variants_answer_like_float32(calibrated_run: Path, tmp_path: Path) -> None:
    """Both variants hold numbers of their type and answer nearly like float32."""
    bundle = export(calibrated_run, SOURCE, tmp_path, "small", "1")
    variants = make_variants(bundle.model, SOURCE.training().images)
    assert variants["float32"] == bundle.model
    types = {
        name: {tensor.data_type for tensor in onnx.load_from_string(model).graph.initializer}
        for name, model in variants.items()
    }
    assert onnx.TensorProto.INT8 in types["int8"]
    assert onnx.TensorProto.FLOAT16 in types["float16"]
    images, labels = SOURCE.training().images, SOURCE.training().labels
    measured = compare_variants(
        {name: Variant(model, images) for name, model in variants.items()}, labels
    )
    assert measured["float32"]["agreement"] == 1
    assert measured["float32"]["speed"] == {1: 1.0, 32: 1.0}
    for name in ("int8", "float16"):
        assert 0 < measured[name]["largest_difference"] < 0.2
        assert measured[name]["agreement"] > 0.95
        assert np.isfinite(measured[name]["speed"][1])
    page = render_variants({"small-1": measured})
    size, accuracy = len(variants["int8"]), measured["int8"]["accuracy"]
    assert f"| `small-1` | int8 | {size:,} | {accuracy:.2%} |" in page
