"""The choice of the rule that makes a model's input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from service.imaging import PREPROCESSINGS, InputSpec, read_image
from tests import golden
from tests.service.images import encode, noise


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


PHOTO, SMALL, LARGE = (
    InputSpec("letterbox", (40, 40)),
    InputSpec("item-on-black", (28, 28)),
    InputSpec("item-on-black", (60, 90)),
)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("spec", [SMALL, LARGE])
@pytest.mark.parametrize("default", [PHOTO, SMALL])
def test_grey_image_of_an_exact_size_is_unchanged(
    spec: InputSpec, default: InputSpec, mode: str
) -> None:
    """A grey image of the size of one of `exact` becomes that input, pixel for pixel."""
    pixels = noise(*spec.size)
    upload = encode(Image.fromarray(pixels).convert(mode))
    seen = read_image(upload, default, 10_000, [SMALL, LARGE])
    assert seen.spec == spec
    np.testing.assert_array_equal(seen.image, pixels)


@pytest.mark.parametrize("size", [(28, 29), (90, 60), (120, 180), (240, 360), (480, 720)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_image_of_another_size_gets_the_default(size: tuple[int, int], file_format: str) -> None:
    """A grey image that only decoding reduces to an exact size becomes the default input."""
    upload = encode(noise(*size), file_format)
    alone = read_image(upload, PHOTO, 10**6)
    seen = read_image(upload, PHOTO, 10**6, [SMALL, LARGE])
    assert seen.spec == PHOTO
    assert np.abs(seen.image.astype(int) - alone.image).mean() < 20  # LARGE reduces it less


def test_coloured_image_of_an_exact_size_gets_the_default() -> None:
    """One pixel of colour is enough: only the default rule sees it."""
    image = Image.new("RGB", (28, 28), "white")
    image.putpixel((3, 4), (255, 255, 254))
    upload = encode(image)
    assert read_image(upload, PHOTO, 10_000, [SMALL]).spec == PHOTO


def test_grey_cut_out_is_no_model_input() -> None:
    """A grey image of the model's size is taken as it is only if no part of it is transparent."""
    grey = Image.fromarray(golden.images()[0])
    spec = InputSpec("item-on-black", (28, 28))
    photo = InputSpec("letterbox", (64, 64))
    opaque = Image.merge("LA", (grey, Image.new("L", grey.size, 255)))
    cut_out = Image.merge("LA", (grey, grey))
    for image, expected in ((grey, spec), (opaque, spec), (cut_out, photo)):
        assert read_image(encode(image), photo, 10_000, (spec,)).spec == expected
    assert read_image(encode(opaque), spec, 10_000).placed is None
    assert read_image(encode(cut_out), spec, 10_000).placed is not None
