"""Own the way from image bytes to the model's input: orientation, grey, size, polarity. The only importer of Pillow.

Everything geometric is here, for training as for serving; everything arithmetic is in the model.
Must know nothing of HTTP or of the model.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from service.errors import ImageTooLargeError, UnreadableImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_SIDE_PIXELS = 32_768
MAX_JPEG_SCANS = 100  # ten are usual
MAX_STRIPS = 16_384  # of a TIFF, or tiles
JPEG_SCAN = b"\xff\xda"
REDUCED_SCALE = 4  # large images are first brought down to no less than this times the model's size
PREPROCESSING = "fit-pad"
"""The name of the rule that ``read_image`` follows; a model's manifest names the rule it expects."""


@dataclass(frozen=True)
class ModelInput:
    """``image`` is uint8 ``[height, width]`` of the model; ``source_pixels`` counts those of the upload."""

    image: NDArray[np.uint8]
    source_pixels: int


def read_image(data: bytes, size: tuple[int, int], max_pixels: int) -> ModelInput:
    """Turn the bytes of an image into the model's input, a bright item on black.

    The first frame is oriented by its EXIF tag, flattened over white where transparent, and made grey.
    A grey image of the model's size is then taken as it is, pixel for pixel.
    Any other is fitted: negated if its border is light (the models know bright items on black), scaled until its
    longer edge fits ``size`` (height, width), centred, and padded with the median of its border.

    Raises:
        ImageTooLargeError: The header declares more than ``max_pixels``; nothing was decoded.
        UnreadableImageError: The bytes are no image of an accepted format, or a damaged one.
    """
    image = _open(data, max_pixels)
    _check(image, data, max_pixels)
    source_pixels = image.width * image.height
    image = _decode(image, REDUCED_SCALE * max(size), len(data))
    taken_as_it_is = (image.height, image.width) == size and _is_grey(image)
    grey = image.convert("L")
    return ModelInput(np.asarray(grey) if taken_as_it_is else _fit(grey, size), source_pixels)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone."""
    if not data:
        raise UnreadableImageError(f"the upload is empty; send an image ({', '.join(FORMATS)})")
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"the image has more than the {max_pixels} pixels allowed; scale it down") from error
    except Exception as error:  # as below: a damaged header makes Pillow raise anything
        raise UnreadableImageError(
            f"the upload of {len(data)} bytes is not an image in an accepted format; send {', '.join(FORMATS)}"
        ) from error


def _check(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse by its header what would cost more than an image can be worth."""
    if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE_PIXELS:
        raise ImageTooLargeError(
            f"the image has {image.width} x {image.height} pixels; at most {max_pixels} are allowed, "
            f"and {MAX_SIDE_PIXELS} a side; scale it down"
        )
    # Each scan of a progressive JPEG goes over all its pixels, and may be of a few bytes. In an image's data the first
    # byte of a marker is escaped, so what is counted is markers.
    scans = data.count(JPEG_SCAN) if image.format == "JPEG" else 0
    strips = len(getattr(image, "tile", ()))
    if scans > MAX_JPEG_SCANS or strips > MAX_STRIPS:
        raise UnreadableImageError(
            f"the {image.format} image is in {scans} scans and {strips} strips or tiles; at most {MAX_JPEG_SCANS} and "
            f"{MAX_STRIPS} are read; save it anew"
        )


def _decode(image: Image.Image, shortest: int, upload_bytes: int) -> Image.Image:
    """Return the image upright, as L or RGB, its shorter edge no shorter than ``shortest`` if it was longer."""
    if min(image.size) > 2 * shortest:
        # A JPEG is then decoded at a half, a quarter or an eighth, and its brightness alone; others take no notice.
        image.draft("L", (shortest, shortest))
    try:
        orientation = image.getexif().get(Base.Orientation)
        small = _flatten(_shrink(_to_8_bit(image), shortest))
        small.getexif()[Base.Orientation] = orientation
        return ImageOps.exif_transpose(small)
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to, not only OSError
        raise UnreadableImageError(
            f"the {image.format} image of {upload_bytes} bytes is damaged or incomplete; send it again"
        ) from error


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale deeper grey to 8 bits, where Pillow would clip: 16-bit by its full range, 32-bit by its own range."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    if image.mode not in ("I", "F"):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    values -= low
    values *= 255 / max(float(high) - float(low), 1e-12)
    return Image.fromarray(values.astype(np.uint8))


def _shrink(image: Image.Image, shortest: int) -> Image.Image:
    """Average a large image down, before other steps make copies of it that nobody needs."""
    factor = min(image.size) // shortest
    if factor < 2:
        return image
    if image.has_transparency_data:
        # RGBa weighs the colours by their opacity: invisible ones must not show.
        return image.convert("RGBA").convert("RGBa").reduce(factor).convert("RGBA")
    return (image if image.mode in ("L", "RGB") else image.convert("RGB")).reduce(factor)


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue = np.moveaxis(np.asarray(image), 2, 0)
    return bool((red == green).all() and (green == blue).all())


def _fit(grey: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    scale = min(height / grey.height, width / grey.width)
    inner = max(1, round(grey.width * scale)), max(1, round(grey.height * scale))
    item = np.asarray(grey.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0))
    if _border_median(item) > 127:
        item = 255 - item
    fitted = np.full(size, _border_median(item), dtype=np.uint8)
    top, left = (height - item.shape[0]) // 2, (width - item.shape[1]) // 2
    fitted[top : top + item.shape[0], left : left + item.shape[1]] = item
    return fitted


def _border_median(grey: NDArray[np.uint8]) -> int:
    return int(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
