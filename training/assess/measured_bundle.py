"""A bundle that answers pictures as the service does, and as a client without preparation would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from service.bundle import Bundle
from service.errors import InvalidRequestError
from service.imaging import InputSpec, read_image, read_picture
from training.assess.photo_kinds import Picture
from training.data.sources.folder import MAX_PIXELS
from training.errors import DataError

BATCH_SIZE = 50

Input = NDArray[np.uint8]


@dataclass(frozen=True)
class Answers:
    """The answers to N pictures: ``class_ids`` ``[N]``, ``accepted`` ``[N]`` and ``activations``.

    ``accepted`` is what the service calls ``in_distribution``, None for a bundle without distances.
    ``activations`` are float32 ``[N, K, h, w]``, None for a bundle without them.
    """

    class_ids: NDArray[np.int64]
    accepted: NDArray[np.bool_] | None
    activations: NDArray[np.float32] | None


class MeasuredBundle:
    """A bundle that answers pictures."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self._spec = InputSpec(self.manifest.preprocessing, self.manifest.input_size)
        self._session = onnxruntime.InferenceSession(
            bundle.model, providers=["CPUExecutionProvider"]
        )

    def prepare(self, picture: Picture) -> Input:
        """Turn a picture into the model's input, as the service does.

        Raises:
            DataError: The file is not an image that the service reads.
        """
        try:
            return read_image(picture.data, self._spec, MAX_PIXELS).image
        except InvalidRequestError as error:
            raise DataError(f"{picture.name} cannot be read: {error}") from error

    def squash(self, picture: Picture) -> Input:
        """Resize a picture to the model's input, as a client without the preparation does."""
        height, width, *channels = self._spec.shape
        image = read_picture(picture.data, MAX_PIXELS).image.convert("RGB" if channels else "L")
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def answer(self, images: Sequence[Input]) -> Answers:
        """Answer model inputs ``[N, *shape]``."""
        names = [output.name for output in self._session.get_outputs()]
        batches = [
            self._session.run(None, {"image": np.stack(images[start : start + BATCH_SIZE])})
            for start in range(0, len(images), BATCH_SIZE)
        ]
        outputs: dict[str, Any] = {
            name: np.concatenate(parts)
            for name, parts in zip(names, zip(*batches, strict=True), strict=True)
        }
        distances, threshold = outputs.get("distance"), self.manifest.distance_threshold
        accepted = None if distances is None or threshold is None else distances <= threshold
        class_ids = outputs["probabilities"].argmax(axis=1)
        return Answers(class_ids, accepted, outputs.get("activations"))
