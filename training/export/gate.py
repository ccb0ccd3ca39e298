"""The checks that a graph must pass before it is published."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime

from training.data.samples import Samples
from training.errors import ExportError
from training.fit.answers import Answers, answer, run_graph

OUTPUTS = ("probabilities", "distance")
PARITY_BATCH_SIZES = (1, 2, 7, 32)
PARITY_IMAGES = 1_000
PARITY_TOLERANCE = 1e-4


def check(graph: onnx.ModelProto, model: Any, test: Samples, accuracy: float) -> dict[str, Any]:
    """Check the graph by itself and against the Keras model that it was made from; return what was measured.

    ``accuracy`` is the one that ``evaluate`` measured on the same test set.

    Raises:
        ExportError: A check failed.
    """
    check_graph(graph)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    compared = min(PARITY_IMAGES, len(test))
    expected = answer(model, test.images[:compared])
    differences = []
    for batch_size in PARITY_BATCH_SIZES:
        actual = run_graph(session, test.images[:compared], batch_size)
        differences.append(_compare(actual, expected, batch_size))
    measured = float(
        (run_graph(session, test.images, 500).probabilities.argmax(1) == test.labels).mean()
    )
    if measured != accuracy:
        raise ExportError(
            f"the graph's accuracy on the test set is {measured:.4%}, the evaluated one {accuracy:.4%}"
        )
    return {
        "images": compared,
        "batch_sizes": list(PARITY_BATCH_SIZES),
        "largest_difference": max(differences),
        "test_accuracy": measured,
        "onnxruntime": onnxruntime.__version__,
    }


def _compare(actual: Answers, expected: Answers, batch_size: int) -> float:
    """Return the largest difference of a probability from Keras; a distance is compared in relation to their spread."""
    difference = float(abs(actual.probabilities - expected.probabilities).max())
    away = 0.0
    if len(expected.distances):
        away = float(abs(actual.distances - expected.distances).max() / expected.distances.std())
    changed = int((actual.probabilities.argmax(1) != expected.probabilities.argmax(1)).sum())
    if not (difference <= PARITY_TOLERANCE and away <= PARITY_TOLERANCE) or changed:
        raise ExportError(
            f"at batch size {batch_size} the graph differs from Keras by {difference:.2e} in a probability, by "
            f"{away:.2e} in a distance (allowed: {PARITY_TOLERANCE:.0e}) and in the class of {changed} of "
            f"{len(expected.probabilities)} test images"
        )
    return difference


def check_graph(graph: onnx.ModelProto) -> None:
    """Check that the graph is valid ONNX, has the agreed inputs and outputs and computes no shapes.

    Raises:
        ExportError: It is or has not.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
        onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid ONNX: {error}") from error
    computed = [node.op_type for node in graph.graph.node if node.op_type in ("Shape", "Size")]
    if computed:
        raise ExportError(
            f"the graph computes shapes at run time ({', '.join(computed)}): fold them into constants"
        )
    found = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            value.type.tensor_type.shape.dim[0].dim_param,
        )
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    agreed = [
        ("image", onnx.TensorProto.UINT8, "batch"),
        *((name, onnx.TensorProto.FLOAT, "batch") for name in OUTPUTS),
    ]
    if found not in (agreed, agreed[:2]):
        raise ExportError(
            f"the graph has the inputs and outputs {found}, agreed are {agreed}, the last if calibrated"
        )
