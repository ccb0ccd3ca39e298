"""Export: the bundle answers like the run, and the gate lets nothing else through."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from service.bundle import read_bundle, self_test_image
from service.errors import BundleError
from tests.training.fashion_mnist import SampleSource
from training.architectures import find_architecture
from training.errors import ExportError, RunError
from training.export.bundle import export
from training.export.gate import check, check_graph
from training.export.graph import OPSET, convert
from training.fit.answers import predict
from training.fit.runs import load_model, read_config, read_metrics

SOURCE = SampleSource()


@pytest.fixture(scope="session")
def bundle_folder(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the bundle exported from the small run."""
    return export(small_run, SOURCE, tmp_path_factory.mktemp("models"), "small", "1").folder


@pytest.fixture
def graph(bundle_folder: Path) -> onnx.ModelProto:
    """The exported graph, to be tampered with."""
    return onnx.load_from_string(read_bundle(bundle_folder).model)


def run(model: bytes, images: Any) -> Any:
    """Run a graph on ONNX Runtime."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"image": images}
    )[0]


def test_bundle_answers_like_keras(small_run: Path, bundle_folder: Path) -> None:
    """The graph of the bundle gives Keras' probabilities for images it never saw, and for the self-test."""
    bundle = read_bundle(bundle_folder)
    images = SOURCE.test().images
    np.testing.assert_allclose(
        run(bundle.model, images), predict(load_model(small_run), images), atol=1e-5
    )
    answer = run(bundle.model, self_test_image((28, 28))[None])[0]
    np.testing.assert_allclose(answer, bundle.manifest.self_test, atol=1e-5)


def test_manifest_says_what_was_measured(small_run: Path, bundle_folder: Path) -> None:
    """The manifest holds the figures of the run's metrics and of the comparison, the card shows them."""
    manifest = read_bundle(bundle_folder).manifest
    measured = read_metrics(small_run)["test"]
    assert (
        manifest.metrics["test"]["accuracy"]
        == manifest.metrics["parity"]["test_accuracy"]
        == measured["accuracy"]
    )
    assert manifest.data_sha256 == SOURCE.training().sha256()
    assert manifest.class_names == SOURCE.class_names
    assert manifest.training["epochs"] == 3
    assert f"{measured['accuracy']:.2%}" in (bundle_folder / "MODEL_CARD.md").read_text()


def test_model_says_what_it_is(graph: onnx.ModelProto) -> None:
    """The model itself names its classes, version, preprocessing and origin, and needs no other file."""
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert tuple(json.loads(properties["class_names"])) == SOURCE.class_names
    assert (properties["name"], properties["version"], properties["preprocessing"]) == (
        "small",
        "1",
        "item-on-black",
    )
    assert properties["data_sha256"] == SOURCE.training().sha256()
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
    assert not any(initializer.external_data for initializer in graph.graph.initializer)


@pytest.mark.parametrize("name", ["mlp-64-64", "cnn-4conv"])
def test_other_networks_sizes_and_classes_convert(name: str) -> None:
    """A network for other images and classes becomes a valid graph without computed shapes that answers alike."""
    model = find_architecture(name).build((32, 28), 3)
    graph = convert(model, (32, 28))
    check_graph(graph)
    images = np.random.default_rng(1).integers(0, 256, (7, 32, 28), dtype=np.uint8)
    np.testing.assert_allclose(
        run(graph.SerializeToString(), images), predict(model, images), atol=1e-5
    )


def tamper_weight(graph: onnx.ModelProto) -> None:
    """Change the weights of the last layer a little."""
    last = next(
        initializer
        for initializer in graph.graph.initializer
        if list(initializer.dims) == [128, 10]
    )
    last.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(last) * np.float32(1.01), last.name)
    )


def tamper_output(graph: onnx.ModelProto) -> None:
    """Rename the output."""
    graph.graph.node[-1].output[0] = graph.graph.output[0].name = "scores"


def tamper_batch(graph: onnx.ModelProto) -> None:
    """Fix the batch size."""
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def tamper_edge(graph: onnx.ModelProto) -> None:
    """Let the last operator read what nobody writes."""
    graph.graph.node[-1].input[0] = "nothing"


def tamper_type(graph: onnx.ModelProto) -> None:
    """Declare another number of classes."""
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11


def tamper_shape(graph: onnx.ModelProto) -> None:
    """Let a Reshape compute its shape again."""
    graph.graph.node.insert(0, helper.make_node("Shape", ["image"], ["computed"]))


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (tamper_weight, r"at batch size 1 the graph differs from Keras by"),
        (tamper_output, r"inputs and outputs .*scores.*agreed are"),
        (tamper_batch, r"inputs and outputs"),
        (tamper_edge, r"not valid ONNX"),
        (tamper_type, r"not valid ONNX"),
        (tamper_shape, r"computes shapes at run time \(Shape\)"),
    ],
)
def test_gate_refuses_a_tampered_graph(
    small_run: Path, graph: onnx.ModelProto, tamper: Any, said: str
) -> None:
    """A graph that is not the evaluated model, or not as agreed, is refused with what is wrong."""
    test, accuracy = SOURCE.test(), read_metrics(small_run)["test"]["accuracy"]
    check(graph, load_model(small_run), test, accuracy)
    tamper(graph)
    with pytest.raises(ExportError, match=said):
        check(graph, load_model(small_run), test, accuracy)


def test_gate_refuses_another_accuracy(small_run: Path, graph: onnx.ModelProto) -> None:
    """A graph whose accuracy is not the one that was evaluated is refused with both figures."""
    with pytest.raises(ExportError, match=r"the evaluated one 99\.0000%"):
        check(graph, load_model(small_run), SOURCE.test(), 0.99)


def test_published_version_is_not_overwritten(small_run: Path, bundle_folder: Path) -> None:
    """Exporting a name and version that exist is refused and changes nothing."""
    before = (bundle_folder / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="exists already"):
        export(small_run, SOURCE, bundle_folder.parents[1], "small", "1")
    assert (bundle_folder / "manifest.json").read_bytes() == before


def test_run_that_was_not_evaluated_is_not_exported(small_run: Path, tmp_path: Path) -> None:
    """Export asks for evaluate first, and for the weights where they are not here."""
    run_folder = tmp_path / "run"
    shutil.copytree(small_run, run_folder)
    (run_folder / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"was not evaluated: run `python -m training evaluate"):
        export(run_folder, SOURCE, tmp_path, "small", "1")
    shutil.copy(small_run / "metrics.json", run_folder)
    (run_folder / "model.keras").unlink()
    with pytest.raises(RunError, match=r"model\.keras is missing"):
        export(run_folder, SOURCE, tmp_path, "small", "1")
    assert read_config(run_folder).name == "small"
