"""The gate accepts the evaluated graph and rejects every other graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.training.fashion_mnist import SampleSource
from training.assess.calibration import load_calibrated
from training.errors import ExportError
from training.export.bundle import export
from training.export.gate import check
from training.fit.runs import load_model, read_metrics

SOURCE = SampleSource()


def tamper_weight(graph: onnx.ModelProto) -> None:
    """Change the weights of the last layer a little."""
    initializers = graph.graph.initializer
    last = next(tensor for tensor in initializers if list(tensor.dims) == [128, 10])
    changed = numpy_helper.to_array(last) * np.float32(1.01)
    last.CopyFrom(numpy_helper.from_array(changed, last.name))


def tamper_output(graph: onnx.ModelProto) -> None:
    """Rename the output."""
    graph.graph.node[-1].output[0] = graph.graph.output[0].name = "scores"


def tamper_batch(graph: onnx.ModelProto) -> None:
    """Fix the batch size."""
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def tamper_edge(graph: onnx.ModelProto) -> None:
    """Let the last operator read a value that no operator writes."""
    graph.graph.node[-1].input[0] = "nothing"


def tamper_type(graph: onnx.ModelProto) -> None:
    """Declare another number of classes."""
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11


def tamper_shape(graph: onnx.ModelProto) -> None:
    """Insert an operator that computes a shape."""
    graph.graph.node.insert(0, helper.make_node("Shape", ["image"], ["computed"]))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (tamper_weight, r"at batch size 1 the graph differs from Keras by"),
        (tamper_output, r"inputs and outputs .*scores.*expected"),
        (tamper_batch, r"inputs and outputs"),
        (tamper_edge, r"not valid ONNX"),
        (tamper_type, r"not valid ONNX"),
        (tamper_shape, r"computes shapes at run time \(Shape\)"),
    ],
)
def test_tampered_graph_is_rejected(
    small_run: Path, graph: onnx.ModelProto, tamper: Any, message: str
) -> None:
    """A graph with other answers, or with unexpected inputs or outputs, is rejected."""
    model, test = load_model(small_run), SOURCE.test()
    accuracy = read_metrics(small_run)["test"]["accuracy"]
    check(graph, model, test.images, test.labels, accuracy)
    tamper(graph)
    with pytest.raises(ExportError, match=message):
        check(graph, model, test.images, test.labels, accuracy)


def test_other_distance_is_rejected(calibrated_run: Path, tmp_path: Path) -> None:
    """A graph with Keras' probabilities but with other distances is rejected."""
    model, test = load_calibrated(calibrated_run), SOURCE.test()
    accuracy = read_metrics(calibrated_run)["test"]["accuracy"]
    bundle = export(calibrated_run, SOURCE, tmp_path, "calibrated", "1")
    graph = onnx.load_from_string(bundle.model)
    check(graph, model, test.images, test.labels, accuracy)
    (last,) = (node for node in graph.graph.node if "distance" in node.output)
    last.output[0] = "measured"
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1.01], np.float32), "factor"))
    graph.graph.node.append(helper.make_node("Mul", ["measured", "factor"], ["distance"]))
    with pytest.raises(ExportError, match=r"and by \d\.\d\de[+-]0[0-3] in a distance"):
        check(graph, model, test.images, test.labels, accuracy)


def test_other_accuracy_is_rejected(small_run: Path, graph: onnx.ModelProto) -> None:
    """A graph with another accuracy than the evaluated one is rejected."""
    test = SOURCE.test()
    with pytest.raises(ExportError, match=r"the evaluated accuracy is 99\.0000%"):
        check(graph, load_model(small_run), test.images, test.labels, 0.99)
