"""Fuzz target: any bytes become an input of the model's size, or one of the decoder's two errors, within seconds.

Run by ``make fuzz``; see libFuzzer's manual for the arguments.
"""

import sys

import atheris

# Not instrumented: atheris never frees the result of an instrumented comparison, and here they are arrays.
import service.imaging.item  # noqa: F401

with atheris.instrument_imports():
    from PIL import Image

    Image.init()  # else a format's module would be loaded with its first file, uninstrumented
    from service.errors import ImageTooLargeError, UnreadableImageError
    from service.imaging.model_input import read_image

SIZE = (28, 28)
MAX_PIXELS = 1_000_000


def decode(data: bytes) -> None:
    """Decode ``data`` as an image."""
    try:
        image = read_image(data, SIZE, MAX_PIXELS).image
    except (ImageTooLargeError, UnreadableImageError):
        return
    assert image.shape == SIZE


if __name__ == "__main__":
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
