"""From the bytes of a file to the upright picture in it."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging.screening import screen

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_SIDE_PIXELS = 32_768
PIXEL_WEIGHTS = {
    "WEBP": 2,
    "TIFF": 2,
}  # decoding takes up to 17 and 16 bytes of each, and of other formats 8
MAX_EXIF_BYTES = 65_536  # what a segment of a JPEG holds
MAX_STRIPS = 16_384  # of a TIFF, or tiles
BAND_PIXELS = 2**18  # of a large image, converted at a time
ORIENTATIONS = {  # EXIF's: how an image is stored -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """An upright ``image`` of mode L or RGB; ``source_pixels`` counts the pixels of the file."""

    image: Image.Image
    source_pixels: int


def read_picture(data: bytes, max_pixels: int, shortest: int | None = None) -> Picture:
    """Read the first frame of an image file: upright by its EXIF tag, flattened over white.

    With ``shortest``, a large picture is averaged down until its shorter edge is between
    ``shortest`` and twice ``shortest``, which takes less time and memory.

    Raises:
        ImageTooLargeError: The header declares more than ``max_pixels``. Nothing was decoded.
        UnreadableImageError: The bytes are not an image of an accepted format, or are damaged.
    """
    image = _open(data, max_pixels)
    _check(image, max_pixels)
    source_pixels = image.width * image.height
    return Picture(_decode(image, shortest or min(image.size), len(data)), source_pixels)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone."""
    if not data:
        raise UnreadableImageError(f"the upload is empty; send an image ({', '.join(FORMATS)})")
    screen(data, max_pixels // PIXEL_WEIGHTS["TIFF"])
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"the image has more than the {max_pixels} pixels allowed; scale it down"
        ) from error
    except Exception as error:  # as below: a damaged header makes Pillow raise anything
        raise UnreadableImageError(
            f"the upload of {len(data)} bytes is not an image in an accepted format; send {', '.join(FORMATS)}"
        ) from error


def _check(image: Image.Image, max_pixels: int) -> None:
    """Refuse by its header what would cost more than an image can be worth."""
    max_pixels //= PIXEL_WEIGHTS.get(str(image.format), 1)
    if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE_PIXELS:
        raise ImageTooLargeError(
            f"the {image.format} image has {image.width} x {image.height} pixels; at most {max_pixels} are allowed, "
            f"and {MAX_SIDE_PIXELS} a side; scale it down"
        )
    strips = len(getattr(image, "tile", ()))
    if strips > MAX_STRIPS:
        raise UnreadableImageError(
            f"the {image.format} image is in {strips} strips or tiles; at most {MAX_STRIPS} are read; save it anew"
        )


def _decode(image: Image.Image, shortest: int, upload_bytes: int) -> Image.Image:
    """Return the image upright, as L or RGB, its shorter edge no shorter than ``shortest`` if it was longer."""
    if min(image.size) > 2 * shortest:
        # A JPEG is then decoded at a half, a quarter or an eighth; others take no notice.
        image.draft("RGB", (shortest, shortest))
    try:
        image.load()
        for key in (
            "exif",
            "Raw profile type exif",
        ):  # the latter in hexadecimal numbers, with spaces
            if len(image.info.get(key, "")) > MAX_EXIF_BYTES:
                del image.info[
                    key
                ]  # no camera writes as much, and an object would be made of each number in it
        orientation = image.getexif().get(Base.Orientation)
        small = _flatten(_shrink(image, shortest))
        # Not ``ImageOps.exif_transpose``, which writes the EXIF anew and fails on what no reader minds.
        return small.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else small
    except (
        Exception
    ) as error:  # Pillow's decoders raise whatever a damaged file leads them to, not only OSError
        raise UnreadableImageError(
            f"the {image.format} image of {upload_bytes} bytes is damaged or incomplete; send it again"
        ) from error


def _shrink(image: Image.Image, shortest: int) -> Image.Image:
    """Bring deeper grey to 8 bits, and average a large image down, before other steps make copies of it."""
    factor = max(1, min(image.size) // shortest)
    is_deep = image.mode.startswith(("I", "F"))
    if not is_deep and factor == 1:
        return image
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.reduce(factor)
    # Copies are made of a band of rows at a time: those of a whole image can take a gigabyte.
    rows = factor * max(1, BAND_PIXELS // (factor * image.width))
    boxes = [
        (0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)
    ]
    span = _span(image, boxes) if image.mode in ("I", "F") else None
    bands = [_reduce(_to_8_bit(image.crop(box), span), factor) for box in boxes]
    shrunk = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for box, band in zip(boxes, bands, strict=True):
        shrunk.paste(band, (0, box[1] // factor))
    return shrunk


def _span(image: Image.Image, boxes: list[tuple[int, int, int, int]]) -> tuple[float, float]:
    """Return the least and the largest value of 32-bit grey; what is no finite number counts as 0."""
    ends = [(values.min(), values.max()) for values in (_finite(image.crop(box)) for box in boxes)]
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _finite(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)


def _to_8_bit(image: Image.Image, span: tuple[float, float] | None) -> Image.Image:
    """Scale deeper grey to 8 bits, where Pillow would clip: 16-bit by its full range, 32-bit by its ``span``."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    if span is None:
        return image
    low, high = span
    values = _finite(image) - np.float32(low)
    return Image.fromarray((values * np.float32(255 / max(high - low, 1e-12))).astype(np.uint8))


def _reduce(image: Image.Image, factor: int) -> Image.Image:
    if image.has_transparency_data:
        # RGBa weighs the colours by their opacity: invisible ones must not show.
        return image.convert("RGBA").convert("RGBa").reduce(factor).convert("RGBA")
    return (image if image.mode in ("L", "RGB") else image.convert("RGB")).reduce(factor)


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
