"""The choice of the rule that makes a model's input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from service.imaging import PREPROCESSINGS, InputSpec, read_image
from tests.service.images import encode


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_input_has_the_shape_of_its_spec(preprocessing: str) -> None:
    """Every rule makes an input of the shape that its spec states, and counts the file's pixels."""
    spec = InputSpec(preprocessing, (20, 30))
    seen = read_image(encode(Image.new("RGB", (80, 50), "#aa2030")), spec, 10_000)
    assert seen.image.shape == spec.shape
    assert seen.image.dtype == np.uint8
    assert seen.source_pixels == 4000


def test_photo_models_see_rgb_and_other_models_grey() -> None:
    """Only the rule ``letterbox`` makes an input of three channels."""
    assert InputSpec("letterbox", (20, 30)).shape == (20, 30, 3)
    assert InputSpec("item-on-black", (20, 30)).shape == (20, 30)
    assert InputSpec("fit-pad", (20, 30)).shape == (20, 30)
