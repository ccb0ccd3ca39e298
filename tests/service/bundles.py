"""Small real bundles for tests: a linear model of grey images, and a model of photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.bundle import CARD_FILE, MODEL_FILE, Bundle, Manifest, self_test_image, write_bundle

PHOTO_SIZE = (24, 32)
PHOTO_CELL_PIXELS = 8


def linear_model(
    classes: int, height: int, width: int, *, input_name: str = "image", with_distance: bool = False
) -> bytes:
    """Serialize the ONNX model softmax(W x / 255 + b) for images uint8 ``[N, height, width]``.

    With ``with_distance``, a second output ``distance`` is the mean of x / 255.
    """
    weights, bias = _parameters(classes, height, width)
    nodes = [
        helper.make_node("Cast", [input_name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["vector"]),
        helper.make_node("Gemm", ["vector", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    ]
    if with_distance:
        nodes.append(
            helper.make_node("ReduceMean", ["vector", "columns"], ["distance"], keepdims=0)
        )
        outputs.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]))
    constants = {
        "columns": np.array([1]),
        "scale": np.float32(1 / 255),
        "flat": np.array([-1, height * width]),
        "weights": weights,
        "bias": bias,
    }
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["batch", height, width])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return _serialize(graph)


def hanging_model(classes: int, height: int, width: int) -> bytes:
    """Serialize ``linear_model``, but a white image keeps it busy for years."""
    model = onnx.load_from_string(linear_model(classes, height, width))
    cond = helper.make_tensor_value_info("cond", TensorProto.BOOL, [])
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("before", "after")
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["goes_on"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [turn, cond, ends[0]],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []), ends[1]],
    )
    nodes = list(model.graph.node)
    nodes[1].input[0] = "slow"
    hang = [
        helper.make_node("ReduceMin", ["float"], ["darkest"], keepdims=0),
        helper.make_node("Equal", ["darkest", "white"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], ["one"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one", "many"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "float"], ["slow"], body=body),
    ]
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], *hang, *nodes[1:]])
    constants = {"white": np.float32(255), "many": np.int64(2**50)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return _check_and_serialize(model)


def linear_answer(image: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Compute with NumPy what ``linear_model`` answers to one image: float32 ``[classes]``."""
    weights, bias = _parameters(classes, *image.shape)
    exponentials = np.exp(image.reshape(-1).astype(np.float32) / 255 @ weights + bias)
    answer: NDArray[np.float32] = exponentials / exponentials.sum()
    return answer


def _parameters(
    classes: int, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(7)
    weights = random.normal(0, 0.1, (height * width, classes)).astype(np.float32)
    return weights, random.normal(0, 0.1, classes).astype(np.float32)


def write_linear_bundle(folder: Path, *, model: bytes | None = None, **manifest: Any) -> Bundle:
    """Write a bundle of three classes for 20 x 30 images (height x width) to ``folder``.

    ``manifest`` overrides fields of the manifest.
    """
    fields: dict[str, Any] = {
        "name": "linear",
        "version": "1",
        "input_size": (20, 30),
        "preprocessing": "item-on-black",
        "class_names": ("left", "middle", "right"),
        "opset": 18,
        "self_test": tuple(linear_answer(self_test_image((20, 30)), 3).tolist()),
        "data_sha256": "0" * 64,
        "git_commit": "none",
    } | manifest
    return write_bundle(
        folder,
        Manifest(**fields),
        {MODEL_FILE: model or linear_model(3, 20, 30), CARD_FILE: b"# linear\n"},
    )


def photo_model(height: int, width: int, *, with_activations: bool = True) -> bytes:
    """Serialize an ONNX model that says which colour a photo has most of: red, green or blue.

    The input is uint8 ``[N, height, width, 3]``. The activations are ten times the mean of each
    colour, 0 to 1, in squares of ``PHOTO_CELL_PIXELS``. Their means are the logits. ``distance``
    is the mean of all colours.
    """
    cell = [PHOTO_CELL_PIXELS] * 2
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node(
            "AveragePool", ["scaled"], ["activations"], kernel_shape=cell, strides=cell
        ),
        helper.make_node("ReduceMean", ["activations", "pixels"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMean", ["logits", "columns"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "tenth"], ["distance"]),
    ]
    map_shape: list[str | int] = [
        "batch",
        3,
        height // PHOTO_CELL_PIXELS,
        width // PHOTO_CELL_PIXELS,
    ]
    shapes: dict[str, list[str | int]] = {
        "probabilities": ["batch", 3],
        "distance": ["batch"],
        "activations": map_shape,
    }
    constants = {
        "scale": np.float32(10 / 255),
        "tenth": np.float32(0.1),
        "pixels": np.array([2, 3]),
        "columns": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
            if with_activations or name != "activations"
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return _serialize(graph)


def photo_answer(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute with NumPy what ``photo_model`` answers to one image: float32 ``[3]``."""
    exponentials = np.exp(10 * image.mean(axis=(0, 1)) / 255)
    return np.asarray(exponentials / exponentials.sum(), np.float32)


def write_photo_bundle(folder: Path, *, model: bytes | None = None, **manifest: Any) -> Bundle:
    """Write a bundle of ``photo_model`` for 24 x 32 photos (height x width) to ``folder``.

    ``manifest`` overrides fields of the manifest.
    """
    fields: dict[str, Any] = {
        "name": "colours",
        "version": "1",
        "input_size": PHOTO_SIZE,
        "preprocessing": "letterbox",
        "class_names": ("red", "green", "blue"),
        "opset": 18,
        "self_test": tuple(photo_answer(self_test_image((*PHOTO_SIZE, 3))).tolist()),
        "distance_threshold": 0.8,
        "data_sha256": "0" * 64,
        "git_commit": "none",
    } | manifest
    contents = {MODEL_FILE: model or photo_model(*PHOTO_SIZE), CARD_FILE: b"# colours\n"}
    return write_bundle(folder, Manifest(**fields), contents)


def _serialize(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", 18)]
    return _check_and_serialize(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def _check_and_serialize(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString()
    return serialized
