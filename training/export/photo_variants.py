"""The variants of a bundle for photos: int8 calibrated in several ways, and other input sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod

from service.bundle import Bundle
from service.imaging.letterbox import fit_into_box
from training.assess.photo_runs import stack_one_class
from training.data.photos.collection import Collection, PhotoFolders, open_collection
from training.data.photos.varied import vary
from training.data.samples import Images, Samples
from training.export.variants import Variant, compare_variants, quantize

PICTURES_OF_A_KIND = 40  # for the calibration of int8
SIDES_PIXELS = (128, 160, 192)
SEVEN_BITS = {"reduce_range": True}
WAYS_TO_INT8: Mapping[str, dict[str, Any]] = {
    "int8": {},
    "int8, 7-bit": SEVEN_BITS,
    "int8, 7-bit, percentile": {
        **SEVEN_BITS,
        "calibrate_method": CalibrationMethod.Percentile,
    },
    "int8, 7-bit, entropy": {**SEVEN_BITS, "calibrate_method": CalibrationMethod.Entropy},
}


def make_and_compare_photos(
    bundle: Bundle, training: Samples, folders: PhotoFolders
) -> dict[str, dict[str, Any]]:
    """Make the variants of a bundle for photos, and measure them on the validation pictures.

    Raises:
        DataError: The photos cannot be read.
    """
    recipe, size = bundle.manifest.training["recipe"], bundle.manifest.input_size
    part, validation = training.split(recipe["validation_fraction"], recipe["split_seed"])
    kept_back = open_collection(folders, validation, validation=True)
    images, labels = stack_one_class(kept_back, size)
    calibration = draw_calibration(open_collection(folders, part), size)
    models = {
        name: quantize(bundle.model, calibration, **options)
        for name, options in WAYS_TO_INT8.items()
    }
    variants = {
        name: Variant(model, images) for name, model in {"float32": bundle.model, **models}.items()
    }
    for side in SIDES_PIXELS:
        if (side, side) != size:
            larger, _ = stack_one_class(kept_back, (side, side))
            model = resize_input(bundle.model, side, side)
            variants[f"{side} x {side}"] = Variant(model, larger)
    return compare_variants(variants, labels)


def draw_calibration(collection: Collection, size: tuple[int, int]) -> Images:
    """Draw training pictures of each kind in turn, varied as in training: ``[N, H, W, 3]``."""
    generator = np.random.default_rng(1)
    kinds = (collection.photos, collection.worn, collection.uploads)
    drawn = [kind.draw(generator) for _ in range(PICTURES_OF_A_KIND) for kind in kinds]
    return np.stack([fit_into_box(vary(each.picture, generator), size) for each in drawn])


def resize_input(model: bytes, height: int, width: int) -> bytes:
    """Let the graph of a convolutional network take larger or smaller images.

    The old and the new sides must be multiples of 32, and at least 64. Then the padding of each
    convolution is the same for every size. tf2onnx simplifies graphs whose last maps are 1 x 1.
    """
    graph = onnx.load_from_string(model)
    del graph.graph.value_info[:]
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    sides[1].dim_value, sides[2].dim_value = height, width
    for output in graph.graph.output:
        for side in output.type.tensor_type.shape.dim[2:]:
            side.Clear()
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString())
