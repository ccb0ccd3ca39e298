"""From the bytes of a file to the upright picture in it."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from PIL import AvifImagePlugin, Image
from PIL.ExifTags import Base

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging.heif import name_heif, screen_heif
from service.imaging.screening import screen
from service.imaging.transparency import choose_background

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF")
"""What every browser shows, by Pillow's names. With pillow-heif, ``HEIF`` is read as well."""
OTHER_FORMATS = {
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"II+\0": "a TIFF image",
    b"MM\0+": "a TIFF image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"8BPS": "a Photoshop image",
    b"\0\0\1\0": "an icon",
    b"%PDF": "a PDF document",
}
"""The first bytes of files that are not read, and what the files are."""
SVG_START_BYTES = 1000

MAX_SIDE_PIXELS = 32_768
PIXEL_WEIGHTS = {"WEBP": 2, "AVIF": 4, "HEIF": 2}
"""Decoding takes up to 17, 28 and 16 bytes a pixel, and 8 in other formats: see decision 0014."""
MAX_EXIF_BYTES = 65_536  # what a segment of a JPEG holds
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
    """Read the first frame of an image file: upright, and without transparency.

    Transparent parts become white, or dark grey if the visible part is nearly white.

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


@cache
def _formats() -> tuple[str, ...]:
    """Prepare Pillow's decoders; return the names of the formats that are read."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # SERVICE_THREADS is the limit
    if find_spec("pillow_heif") is None:
        return FORMATS
    import pillow_heif

    # Thumbnails are off because they may differ from the photo: editors leave old ones.
    pillow_heif.register_heif_opener(
        decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
    )
    return (*FORMATS, "HEIF")


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone."""
    if not data:
        raise UnreadableImageError(f"the upload is empty; send {_accepted()}")
    formats, kind = _formats(), name_heif(data)
    if kind is None:
        screen(data)
    elif kind in formats:
        data, formats = screen_heif(data, kind, max_pixels // PIXEL_WEIGHTS[kind]), (kind,)
    else:
        raise UnreadableImageError(f"the upload is a HEIC image; send {_accepted()}")
    try:
        return Image.open(BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"the image has more than the {max_pixels} pixels allowed; scale it down"
        ) from error
    except Exception as error:  # as below: a damaged header makes Pillow raise anything
        raise UnreadableImageError(
            _damaged(kind, len(data)) if kind else _describe(data)
        ) from error


def _accepted() -> str:
    """List the formats that are read, as people write them."""
    names = {"WEBP": "WebP", "HEIF": "HEIC"}
    *others, last = (names.get(name, name) for name in _formats())
    return f"{', '.join(others)} or {last}"


def _describe(data: bytes) -> str:
    """Say what an upload is that Pillow did not open."""
    if b"<svg" in data[:SVG_START_BYTES]:
        return f"the upload is an SVG drawing; send {_accepted()}"
    for start, what in OTHER_FORMATS.items():
        if data.startswith(start):
            return f"the upload is {what}; send {_accepted()}"
    return (
        f"the upload of {len(data)} bytes is not an image in an accepted format; send {_accepted()}"
    )


def _damaged(kind: str | None, upload_bytes: int) -> str:
    return f"the {kind} image of {upload_bytes} bytes is damaged or incomplete; send it again"


def _check(image: Image.Image, max_pixels: int) -> None:
    """Reject by its header an image that would take too much memory or time."""
    max_pixels //= _weigh(image)
    if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE_PIXELS:
        raise ImageTooLargeError(
            f"the {image.format} image has {image.width} x {image.height} pixels; at most "
            f"{max_pixels} are allowed, and {MAX_SIDE_PIXELS} a side; scale it down"
        )


def _weigh(image: Image.Image) -> int:
    """Return how many pixels of other images a pixel of this one counts as."""
    has_costly_alpha = image.format == "HEIF" and image.mode != "RGB"  # 21 bytes a pixel
    return PIXEL_WEIGHTS.get(str(image.format), 1) + has_costly_alpha


def _decode(image: Image.Image, shortest: int, upload_bytes: int) -> Image.Image:
    """Return the image upright, as L or RGB, its shorter edge at least ``shortest`` if it was."""
    if min(image.size) > 2 * shortest:
        # A JPEG is then decoded at a half, a quarter or an eighth. Other formats ignore it.
        image.draft("RGB", (shortest, shortest))
    try:
        image.load()
        orientation = _read_orientation(image)
        small = _flatten(_shrink(image, shortest))
        # ``ImageOps.exif_transpose`` also rewrites the EXIF, and fails on EXIF that readers accept.
        return small.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else small
    except Exception as error:  # Pillow's decoders raise any exception on damaged files
        raise UnreadableImageError(_damaged(image.format, upload_bytes)) from error


def _read_orientation(image: Image.Image) -> int | None:
    """Return EXIF's orientation, unless the EXIF is larger than cameras write it.

    Pillow makes an object of each number in it.
    """
    for key in ("exif", "Raw profile type exif"):  # PNG has hexadecimal EXIF under the second
        if len(image.info.get(key) or "") > MAX_EXIF_BYTES:
            del image.info[key]
    return image.getexif().get(Base.Orientation)


def _shrink(image: Image.Image, shortest: int) -> Image.Image:
    """Average a large image down, and bring 16-bit grey to 8 bits, before steps that copy it."""
    factor = max(1, min(image.size) // shortest)
    if not _is_deep(image) and factor == 1:
        return image
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.reduce(factor)
    # Bands of rows are copied, one at a time: copies of a whole image can take a gigabyte.
    rows = factor * max(1, BAND_PIXELS // (factor * image.width))
    boxes = [
        (0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)
    ]
    bands = [_reduce(_to_8_bit(image.crop(box)), factor) for box in boxes]
    shrunk = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for box, band in zip(boxes, bands, strict=True):
        shrunk.paste(band, (0, box[1] // factor))
    return shrunk


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey by its full range, where Pillow would clip it."""
    if not _is_deep(image):
        return image
    return Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))


def _reduce(image: Image.Image, factor: int) -> Image.Image:
    if image.has_transparency_data:
        # RGBa weighs colours by their opacity, so invisible colours do not show.
        return image.convert("RGBA").convert("RGBa").reduce(factor).convert("RGBA")
    return (image if image.mode in ("L", "RGB") else image.convert("RGB")).reduce(factor)


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("RGB")
    rgba = image.convert("RGBA")
    background = Image.new("RGBA", rgba.size, choose_background(rgba))
    return Image.alpha_composite(background, rgba).convert("RGB")
