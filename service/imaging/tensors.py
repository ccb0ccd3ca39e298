"""Batches of images that are in the model's form already. Knows nothing about HTTP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.errors import UnreadableTensorError

MAX_BATCH_IMAGES = 1024  # of a request, because later requests wait for all of them
MAX_SHAPE_CHARACTERS = 50


def read_tensor(
    data: bytes, shape: str | None, image_shapes: Sequence[tuple[int, ...]]
) -> NDArray[np.uint8]:
    """Return the images in ``data``: uint8 ``[N, ...]``, each of one of ``image_shapes``.

    ``data`` is a file in NumPy's format (.npy). With a ``shape``, such as "N,height,width", it is
    the pixels alone.

    Raises:
        UnreadableTensorError: ``data`` is neither of them, has another type or shape, or holds more
            than ``MAX_BATCH_IMAGES`` images.
    """
    shapes = [",".join(map(str, each)) for each in image_shapes]
    start, sizes = (0, _parse(shape, shapes)) if shape is not None else _read_header(data)
    wanted = f"uint8 {' or '.join(f'[N,{each}]' for each in shapes)} with N of at least 1"
    if sizes[1:] not in image_shapes or type(sizes[0]) is not int or sizes[0] < 1:
        raise UnreadableTensorError(f"the tensor's shape is {list(sizes)}; send {wanted}")
    if sizes[0] > MAX_BATCH_IMAGES:
        raise UnreadableTensorError(
            f"the tensor has {sizes[0]} images; send {MAX_BATCH_IMAGES} at most"
        )
    if math.prod(sizes) != len(data) - start:
        raise UnreadableTensorError(
            f"{len(data) - start} bytes are not a tensor of shape {list(sizes)}; send {wanted}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)


def _parse(shape: str, model_shapes: Sequence[str]) -> tuple[int, ...]:
    numbers = shape.split(",") if len(shape) <= MAX_SHAPE_CHARACTERS else []
    if not all(number.strip().isdecimal() for number in numbers) or not numbers:
        raise UnreadableTensorError(
            f"the shape {shape[:MAX_SHAPE_CHARACTERS]!r} is not a list of numbers; "
            f"send {' or '.join(f'N,{each}' for each in model_shapes)}"
        )
    return tuple(int(number) for number in numbers)


def _read_header(data: bytes) -> tuple[int, tuple[int, ...]]:
    """Return where the pixels begin, and their shape.

    numpy.load would allocate the memory that a header asks for.
    """
    file = BytesIO(data)
    try:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[
            npy.read_magic(file)
        ]
        shape, by_columns, kind = read(file)
    except Exception as error:  # a damaged header makes NumPy raise anything
        raise UnreadableTensorError(
            f"the {len(data)} bytes are not a file in NumPy's format; save uint8 with numpy.save, "
            "or send only the pixels, with their shape in the header X-Shape"
        ) from error
    if kind != np.uint8 or by_columns:
        raise UnreadableTensorError(
            f"the tensor is {kind}{' by columns' if by_columns else ''}; send uint8 in C order"
        )
    return file.tell(), shape
