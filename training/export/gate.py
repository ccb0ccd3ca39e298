"""The gate: checks that a graph must pass before it is published.

The gate reads the test set only to prove that the graph equals the evaluated model. No choice is
based on it.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime

from training.data.samples import Images, Labels
from training.errors import ExportError
from training.fit.answers import Answers, answer, run_graph

OUTPUTS = ("probabilities", "distance", "activations")
PARITY_BATCH_SIZES = (1, 2, 7, 32)
PARITY_IMAGES = 1_000
PARITY_TOLERANCE = 1e-4
STORED_TOLERANCE = 0.01  # the service's self-test allows as much


def check(
    graph: onnx.ModelProto, model: Any, images: Images, labels: Labels, accuracy: float
) -> dict[str, Any]:
    """Check that a graph is valid and equals its Keras model, and return the measured figures.

    ``images`` are the test set's, as inputs of the model. ``accuracy`` is the result of
    ``evaluate`` on the same test set.

    Raises:
        ExportError: A check failed.
    """
    check_graph(graph)
    session = _open(graph)
    compared = images[:PARITY_IMAGES]
    expected = answer(model, compared)
    differences = [
        _compare(run_graph(session, compared, batch_size), expected, batch_size)
        for batch_size in PARITY_BATCH_SIZES
    ]
    predicted = run_graph(session, images, 100).probabilities.argmax(axis=1)
    measured = float((predicted == labels).mean())
    if measured != accuracy:
        raise ExportError(
            f"the graph's accuracy on the test set is {measured:.4%}, "
            f"but the evaluated accuracy is {accuracy:.4%}"
        )
    return {
        "images": len(compared),
        "batch_sizes": list(PARITY_BATCH_SIZES),
        "largest_difference": max(differences),
        "test_accuracy": measured,
        "onnxruntime": onnxruntime.__version__,
    }


def compare_stored(
    stored: onnx.ModelProto, graph: onnx.ModelProto, images: Images, labels: Labels
) -> dict[str, Any]:
    """Compare a graph whose weights are stored in float16 with the float32 graph.

    Raises:
        ExportError: The stored graph is not valid, or a probability changes too much.
    """
    check_graph(stored)
    before = run_graph(_open(graph), images[:PARITY_IMAGES], 100).probabilities
    after = run_graph(_open(stored), images, 100).probabilities
    difference = float(abs(before - after[:PARITY_IMAGES]).max())
    if difference > STORED_TOLERANCE:
        raise ExportError(
            f"float16 weights change a probability by {difference:.2e}; at most "
            f"{STORED_TOLERANCE} is allowed: store the weights in float32"
        )
    correct = int((after.argmax(axis=1) == labels).sum())
    return {"weights": "float16", "largest_change": difference, "test_correct": correct}


def _open(graph: onnx.ModelProto) -> Any:
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def _compare(actual: Answers, expected: Answers, batch_size: int) -> float:
    """Return the largest difference of a probability from Keras.

    Distances are compared in units of their standard deviation.
    """
    difference = float(abs(actual.probabilities - expected.probabilities).max())
    away = 0.0
    if len(expected.distances):
        away = float(abs(actual.distances - expected.distances).max() / expected.distances.std())
    changed = int((actual.probabilities.argmax(1) != expected.probabilities.argmax(1)).sum())
    if not (difference <= PARITY_TOLERANCE and away <= PARITY_TOLERANCE) or changed:
        raise ExportError(
            f"at batch size {batch_size} the graph differs from Keras by {difference:.2e} in a "
            f"probability and by {away:.2e} in a distance (allowed: {PARITY_TOLERANCE:.0e}), and "
            f"in the class of {changed} of {len(expected.probabilities)} test images (allowed: 0)"
        )
    return difference


def check_graph(graph: onnx.ModelProto) -> None:
    """Check that a graph is valid ONNX, has the right inputs and outputs, and computes no shapes.

    Raises:
        ExportError: A check failed.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
        onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid ONNX: {error}") from error
    computed = [node.op_type for node in graph.graph.node if node.op_type in ("Shape", "Size")]
    if computed:
        raise ExportError(
            f"the graph computes shapes at run time ({', '.join(computed)}): "
            "replace them by constants with fold_shapes"
        )
    found = [_describe(value) for value in (*graph.graph.input, *graph.graph.output)]
    expected = [
        ("image", onnx.TensorProto.UINT8, "batch"),
        *((name, onnx.TensorProto.FLOAT, "batch") for name in OUTPUTS),
    ]
    if found not in (expected, expected[:3], expected[:2]):
        raise ExportError(
            f"the graph has the inputs and outputs {found}, expected {expected}; only a calibrated "
            "model has a distance, and only a model for photos has activations"
        )


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, str]:
    """Return name, type and name of the first dimension of an input or output."""
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tensor.shape.dim[0].dim_param
