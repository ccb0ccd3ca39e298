"""The variants of a bundle's graph, and their figures beside the graph itself.

This module publishes nothing and does not read the test set.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from service.bundle import Bundle
from training.data.samples import Images, Labels, Samples
from training.fit.answers import Answers, run_graph
from training.fit.runs import processor

CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 8
ROUNDS = 100
BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class Variant:
    """A graph, and the validation images ``[N, *input]`` in the form that it takes."""

    model: bytes
    images: Images


class _Images(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
    """Batches of training images for the calibration of int8: all are of one size.

    Two of ONNX Runtime's ways to calibrate fail if the last batch is smaller.
    """

    def __init__(self, images: Images) -> None:
        starts = range(0, len(images), CALIBRATION_BATCH)
        self._batches = iter([{"image": images[i : i + CALIBRATION_BATCH]} for i in starts])

    def get_next(self) -> dict[str, Images] | None:
        return next(self._batches, None)


def make_variants(model: bytes, images: Images) -> dict[str, bytes]:
    """Make the variants of a float32 model. Training images ``[N, H, W]`` calibrate int8."""
    half = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
    return {
        "float32": model,
        "int8": quantize(model, images[:CALIBRATION_IMAGES]),
        "float16": half.SerializeToString(),
    }


def quantize(model: bytes, images: Images, **options: Any) -> bytes:
    """Make convolutions int8, with a scale for each channel. ``images`` are for calibration.

    Only convolutions, because they are nearly all of the work and the distance needs a higher
    precision. ``options`` are those of ONNX Runtime's ``quantize_static``.
    """
    with tempfile.TemporaryDirectory() as name:
        prepared, quantized = Path(name) / "prepared.onnx", Path(name) / "int8.onnx"
        _fold(model, prepared)
        quantize_static(
            prepared,
            quantized,
            _Images(images),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **options,
        )
        return quantized.read_bytes()


def compare_variants(variants: Mapping[str, Variant], labels: Labels) -> dict[str, dict[str, Any]]:
    """Compare each variant with float32 on validation, and measure its time on one CPU thread."""
    sessions = {name: _open(variant.model) for name, variant in variants.items()}
    answers = {
        name: run_graph(session, variants[name].images, 100) for name, session in sessions.items()
    }
    seconds = _time(sessions, variants)
    return {
        name: {
            "bytes": len(variants[name].model),
            "accuracy": _accuracy(answers[name], labels),
            **_agree(answers[name], answers["float32"]),
            "milliseconds": {size: 1000 * seconds[name, size] for size in BATCH_SIZES},
            "speed": {size: seconds["float32", size] / seconds[name, size] for size in BATCH_SIZES},
        }
        for name in variants
    }


def render_variants(measured: Mapping[str, Mapping[str, dict[str, Any]]]) -> str:
    """Render the page of variants from the figures of ``compare_variants``, by bundle name."""
    rows = "\n".join(
        _row(bundle, name, row)
        for bundle, variants in measured.items()
        for name, row in variants.items()
    )
    headings = " | ".join(f"ms for a batch of {size}" for size in BATCH_SIZES)
    return f"""# Variants of the models

Written by `python -m training variants` on {processor()}; do not edit.

No variant is shipped. A bundle promises the answers of the trained network: the export's gate and
the service's self-test check these answers. int8 makes large convolutions faster, but it changes
the class of some images.

Tools of ONNX Runtime {onnxruntime.__version__} make the variants:

- int8 is static quantization of the convolutions. Each channel has its own scale, calibrated on
  {CALIBRATION_IMAGES} training images.
- float16 is a conversion of the whole graph.

A model for photos is stored with float16 weights and computes in float32. Its variants:

- int8 is calibrated on varied training pictures: by their smallest and largest values, by
  percentiles, or by entropy. "7-bit" weights cannot overflow on processors without VNNI.
- "160 x 160" and the like are the same network with larger or smaller pictures.

The columns of the table:

- "accuracy" is the accuracy on validation: for a model for photos, on validation pictures that show
  one class.
- "agreement" is the share of validation images that get the same class as in float32.
- "ms" is the median time of {ROUNDS} rounds on one thread. Each round runs every graph once for
  each batch size, so a graph starts with another graph's data in the caches. Brackets hold the
  speed relative to float32.

| bundle | variant | bytes | accuracy | agreement | largest difference of a probability \
| {headings} |
|---|---|---|---|---|---|---|---|
{rows}
"""


def _row(bundle: str, name: str, row: dict[str, Any]) -> str:
    times = [
        f"{row['milliseconds'][size]:.2f} ({row['speed'][size]:.2f} x)" for size in BATCH_SIZES
    ]
    cells = [
        f"`{bundle}`",
        name,
        f"{row['bytes']:,}",
        f"{row['accuracy']:.2%}",
        f"{row['agreement']:.2%}",
        f"{row['largest_difference']:.4f}",
        *times,
    ]
    return f"| {' | '.join(cells)} |"


def make_and_compare(bundle: Bundle, training: Samples) -> dict[str, dict[str, Any]]:
    """Make the variants of a bundle, and measure them on the bundle's validation part."""
    recipe = bundle.manifest.training["recipe"]
    part, validation = training.split(recipe["validation_fraction"], recipe["split_seed"])
    variants = {
        name: Variant(model, validation.images)
        for name, model in make_variants(bundle.model, part.images).items()
    }
    return compare_variants(variants, validation.labels)


def _fold(model: bytes, path: Path) -> None:
    """Write the graph after ONNX Runtime's basic optimization, which folds normalisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _open(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # like the service
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _accuracy(answers: Answers, labels: Labels) -> float:
    return float((answers.probabilities.argmax(axis=1) == labels).mean())


def _agree(answers: Answers, float32: Answers) -> dict[str, float]:
    same = answers.probabilities.argmax(axis=1) == float32.probabilities.argmax(axis=1)
    return {
        "agreement": float(same.mean()),
        "largest_difference": float(abs(answers.probabilities - float32.probabilities).max()),
    }


def _time(
    sessions: Mapping[str, Any], variants: Mapping[str, Variant]
) -> dict[tuple[str, int], float]:
    """Return the median seconds for a batch. Sessions take turns, so other load slows them all."""
    seconds: dict[tuple[str, int], list[float]] = {
        (name, size): [] for name in sessions for size in BATCH_SIZES
    }
    for _ in range(ROUNDS):
        for (name, size), times in seconds.items():
            started = time.perf_counter()
            sessions[name].run(None, {"image": variants[name].images[:size]})
            times.append(time.perf_counter() - started)
    return {key: median(times) for key, times in seconds.items()}
