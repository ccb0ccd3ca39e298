"""From the bytes of a file to the upright picture in it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from service.errors import ImageTooLargeError
from service.imaging import read_picture
from tests.service.images import encode, noise

MAX_PIXELS = 1_000_000


def test_picture_has_every_pixel_of_the_file() -> None:
    """Without a shortest edge the picture is the upright file, pixel for pixel."""
    pixels = noise(300, 200)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    picture = read_picture(encode(pixels, exif=exif), MAX_PIXELS)
    assert picture.source_pixels == pixels.size
    np.testing.assert_array_equal(np.asarray(picture.image), np.rot90(pixels, -1))


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40)])
def test_picture_is_flattened_over_white(alpha: int, expected: int) -> None:
    """The picture is RGB without transparency: white shows where the file is transparent."""
    picture = read_picture(encode(Image.new("RGBA", (30, 20), (40, 40, 40, alpha))), MAX_PIXELS)
    assert picture.image.mode == "RGB"
    assert (np.asarray(picture.image) == expected).all()


def test_large_picture_is_averaged_down_to_a_shortest_edge() -> None:
    """With a shortest edge a large picture comes back at one to two times that edge."""
    picture = read_picture(encode(noise(700, 900)), MAX_PIXELS, shortest=100)
    assert 100 <= min(picture.image.size) < 200
    assert picture.source_pixels == 700 * 900


def test_picture_of_too_many_pixels_is_rejected() -> None:
    """More pixels than allowed raise ImageTooLargeError."""
    with pytest.raises(ImageTooLargeError):
        read_picture(encode(noise(1001, 1000)), MAX_PIXELS)
