"""The conversion to ONNX: the graph describes itself and answers like Keras."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.training.fashion_mnist import SampleSource
from training.architectures import find_architecture
from training.export.gate import check_graph
from training.export.graph import OPSET, convert
from training.fit.answers import predict, run_graph

SOURCE = SampleSource()


def test_model_describes_itself(graph: onnx.ModelProto) -> None:
    """The graph holds its classes, version, preprocessing and origin, and no external data."""
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert tuple(json.loads(properties["class_names"])) == SOURCE.class_names
    assert properties["name"] == "small"
    assert properties["version"] == "1"
    assert properties["preprocessing"] == "item-on-black"
    assert properties["data_sha256"] == SOURCE.training().sha256()
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
    assert not any(initializer.external_data for initializer in graph.graph.initializer)


@pytest.mark.parametrize("name", ["mlp-64-64", "cnn-4conv"])
def test_other_networks_sizes_and_classes_are_converted(name: str) -> None:
    """Another network, image size and class count give a valid graph that answers like Keras."""
    model = find_architecture(name).build((32, 28), 3)
    graph = convert(model, (32, 28))
    check_graph(graph)
    images = np.random.default_rng(1).integers(0, 256, (7, 32, 28), dtype=np.uint8)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = run_graph(session, images, 7)
    np.testing.assert_allclose(answers.probabilities, predict(model, images), atol=1e-5)
