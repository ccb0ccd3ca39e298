"""Fuzz target: within seconds, any bytes become inputs of both kinds of model, or an ImageError.

``make fuzz`` runs it; libFuzzer's manual lists the arguments.
"""

import sys

import atheris

# Not instrumented: atheris never frees the results of comparisons, which are arrays here.
import service.imaging.item  # noqa: F401

with atheris.instrument_imports():
    from PIL import Image

    Image.init()  # else the module of a format is loaded with the first file, uninstrumented
    from service.errors import ImageError
    from service.imaging.model_input import InputSpec, read_image

GREY, PHOTO = InputSpec("item-on-black", (28, 28)), InputSpec("letterbox", (160, 160))
MAX_PIXELS = 1_000_000


def decode(data: bytes) -> None:
    """Decode ``data`` as an image."""
    for spec in (GREY, PHOTO):
        try:
            image = read_image(data, spec, MAX_PIXELS).image
        except ImageError:
            return
        assert image.shape == spec.shape


if __name__ == "__main__":
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
