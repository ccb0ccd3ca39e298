"""The conversion of a Keras model to an ONNX graph.

Only this file imports TensorFlow: the rest of training runs on any Keras backend.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper

from service.bundle import Manifest
from training.export.gate import OUTPUTS

# The highest opset that tf2onnx 1.17 writes. ONNX Runtime reads it since 1.14. For the operators
# used here, its kernels for CPU and CUDA are those of opset 13 to 14: a higher opset gains nothing.
OPSET = 18
LARGE_WEIGHTS = 1_000  # numbers in a tensor


def convert(model: Any, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Convert a Keras model of logits to a graph: uint8 ``image`` -> float32 ``probabilities``.

    ``input_shape`` is (height, width), or (height, width, 3) for photos. The graph of a calibrated
    model has a second output ``distance``, float32 ``[N]``. For photos it has a third output,
    ``activations`` ``[N, K, H / 32, W / 32]``.
    """
    signature = [tf.TensorSpec((None, *input_shape), tf.uint8, name="image")]
    is_grey = len(input_shape) == 2

    # from_function, because tf2onnx 1.17's from_keras cannot read a Keras 3 model. The keys of the
    # returned dict become the names of the outputs.
    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator] # TensorFlow has no types
    def classify(image: Any) -> dict[str, Any]:
        pixels = tf.cast(image, tf.float32)
        outputs = model(tf.expand_dims(pixels, -1) if is_grey else pixels, training=False)
        if not isinstance(outputs, dict):
            return {"probabilities": tf.nn.softmax(outputs)}
        return {"probabilities": tf.nn.softmax(outputs.pop("logits")), **outputs}

    graph, _ = tf2onnx.convert.from_function(classify, signature, opset=OPSET)
    graph.graph.output.sort(key=lambda value: OUTPUTS.index(value.name))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return fold_shapes(graph)


def fold_shapes(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each Reshape's computed shape by a constant, and remove the computing operators.

    tf2onnx turns Flatten into Shape, Gather, Slice, Concat and Reshape. ONNX Runtime runs integer
    operators on the CPU. So on a GPU, each request would wait for copies to the CPU and back. But
    only the batch size is unknown, and a constant -1 can stand for it.
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
    inputs = [value.name for value in graph.graph.input]
    outputs = [value.name for value in graph.graph.output]
    folded = onnx.utils.Extractor(graph).extract_model(inputs, outputs)
    del folded.opset_import[:]
    folded.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return folded


def store_in_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Store large weights as float16, with a Cast to float32: the file is half as large.

    ONNX Runtime casts them once, when it loads the graph, and computes in float32.
    """
    stored = onnx.ModelProto()
    stored.CopyFrom(graph)
    casts = []
    for weights in stored.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.size >= LARGE_WEIGHTS:
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(
                onnx.helper.make_node("Cast", [weights.name], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *stored.graph.node]
    del stored.graph.node[:]
    stored.graph.node.extend(nodes)
    return stored


def add_metadata(graph: onnx.ModelProto, manifest: Manifest) -> None:
    """Write name, classes and origin into the graph, for users who have no manifest."""
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
