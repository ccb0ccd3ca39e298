"""Own the way from a trained run to a published bundle, and the gate in between. The only importer of TensorFlow.

The gate opens the test set: not to choose anything, but to prove that the graph is the model that was evaluated.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper

from service.bundle import CARD_FILE, MODEL_FILE, Bundle, Manifest, self_test_image, write_bundle
from service.imaging import PREPROCESSING
from training.assess.calibration import Calibration, load_calibrated, load_calibration
from training.assess.card import render_card
from training.data.samples import Samples, Source
from training.errors import ExportError
from training.fit.answers import Answers, answer, predict, run_graph
from training.fit.runs import (
    Config,
    git_commit,
    log_opening,
    read_config,
    read_history,
    read_metrics,
)

# The highest that tf2onnx 1.17 writes. ONNX Runtime reads it since 1.14, and for the operators used here its
# kernels on the CPU and on CUDA are those of opset 13 to 14, so a higher one would gain nothing.
OPSET = 18
OUTPUTS = ("probabilities", "distance")
# What metrics.json of the run has and the manifest does without.
DETAILS = ("confusion_matrix", "reliability")
PARITY_BATCH_SIZES = (1, 2, 7, 32)
PARITY_IMAGES = 1_000
PARITY_TOLERANCE = 1e-4


def export(run: Path, source: Source, models: Path, name: str, version: str) -> Bundle:
    """Convert an evaluated run to ONNX, check the graph against Keras and publish it as ``models/NAME/VERSION``.

    Raises:
        RunError: The run has not ended or was not evaluated.
        ExportError: The graph failed a check; nothing was written.
        BundleError: This version exists already.
    """
    config, metrics, model = read_config(run), read_metrics(run), load_calibrated(run)
    manifest = describe(run, config, metrics, model, name, version)
    graph = convert(model, config.input_size)
    add_metadata(graph, manifest)
    log_opening(run, f"comparison of {name} version {version} with Keras")
    parity = check(graph, model, source.test(), metrics["test"]["accuracy"])
    manifest = manifest.model_copy(update={"metrics": {**manifest.metrics, "parity": parity}})
    contents = {MODEL_FILE: graph.SerializeToString(), CARD_FILE: render_card(manifest).encode()}
    return write_bundle(models / name / version, manifest, contents)


def convert(model: Any, input_size: tuple[int, int]) -> onnx.ModelProto:
    """Convert a Keras model of logits to a graph uint8 ``image`` -> float32 ``probabilities``.

    A calibrated model gives ``distance`` too, float32 ``[N]``.
    """
    signature = [tf.TensorSpec((None, *input_size), tf.uint8, name="image")]

    # A function that returns a dict names the outputs; from_keras of tf2onnx 1.17 cannot read a Keras 3 model.
    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator] # TensorFlow has no types
    def classify(image: Any) -> dict[str, Any]:
        outputs = model(tf.expand_dims(tf.cast(image, tf.float32), -1), training=False)
        if isinstance(outputs, dict):
            return {
                "probabilities": tf.nn.softmax(outputs["logits"]),
                "distance": outputs["distance"],
            }
        return {"probabilities": tf.nn.softmax(outputs)}

    graph, _ = tf2onnx.convert.from_function(classify, signature, opset=OPSET)
    graph.graph.output.sort(key=lambda value: OUTPUTS.index(value.name))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return fold_shapes(graph)


def fold_shapes(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each Reshape's computed shape by a constant, and drop what computed it.

    Flatten becomes Shape, Gather, Slice, Concat and Reshape; integer operators run on the CPU, so on a GPU each
    request would wait for the way there and back, although only the batch size is unknown.
    """
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.value_info}
    constants = {initializer.name for initializer in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Reshape" and node.input[1] not in constants:
            sizes = [size.dim_value or -1 for size in shapes[node.output[0]]]
            constant = numpy_helper.from_array(np.array(sizes, np.int64), f"{node.name}_shape")
            graph.graph.initializer.append(constant)
            node.input[1] = constant.name
    folded = onnx.utils.Extractor(graph).extract_model(
        [value.name for value in graph.graph.input], [value.name for value in graph.graph.output]
    )
    del folded.opset_import[:]
    folded.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return folded


def add_metadata(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Write into the model what it is, so that it says so without its manifest too."""
    graph.producer_name = "training"
    onnx.helper.set_model_props(
        graph,
        {
            "name": manifest.name,
            "version": manifest.version,
            "class_names": json.dumps(manifest.class_names),
            "preprocessing": manifest.preprocessing,
            "data_sha256": manifest.data_sha256,
            "git_commit": manifest.git_commit,
        },
    )


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


def describe(
    run: Path, config: Config, metrics: dict[str, Any], model: Any, name: str, version: str
) -> Manifest:
    """Compose the manifest of a run's bundle; ``write_bundle`` adds the hashes of the files."""
    history, calibration = read_history(run), load_calibration(run)
    return Manifest(
        name=name,
        version=version,
        files={MODEL_FILE: "0" * 64},
        input_size=config.input_size,
        preprocessing=PREPROCESSING,
        class_names=config.class_names,
        opset=OPSET,
        self_test=tuple(predict(model, self_test_image(config.input_size)[None])[0].tolist()),
        distance_threshold=None if calibration is None else calibration.threshold,
        prediction_sets=None if calibration is None else calibration.prediction_sets,
        training={
            "run": config.name,
            "architecture": config.architecture,
            "parameters": config.parameters,
            "recipe_name": config.recipe_name,
            "recipe": dataclasses.asdict(config.recipe),
            "epochs": len(history),
            "earlier_epochs": config.earlier_epochs,
            "continued_from": config.continued_from,
            "teachers": list(config.teachers),
            "photos_sha256": config.photos_sha256,
            "seed": config.seed,
            "precision": config.precision,
            "data_source": config.data_source,
            "seconds": round(sum(row["seconds"] for row in history), 1),
            **_describe_calibration(calibration),
            **config.made_by,
        },
        metrics={
            part: {k: v for k, v in values.items() if k not in DETAILS}
            for part, values in metrics.items()
        },
        data_sha256=config.data_sha256,
        git_commit=git_commit(),
    )


def _describe_calibration(calibration: Calibration | None) -> dict[str, Any]:
    if calibration is None:
        return {}
    return {"temperature": calibration.temperature, "known_augmentation": calibration.augmentation}
