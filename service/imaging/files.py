"""From the bytes of a file to the upright picture in it."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from PIL import AvifImagePlugin, GifImagePlugin, Image

from service.errors import ImageError, ImageTooLargeError, UnreadableImageError
from service.imaging.bmp import rewrite_bmp
from service.imaging.exif import read_orientation
from service.imaging.formats import describe, list_formats, name_format
from service.imaging.gif import strip_gif
from service.imaging.heif import screen_heif
from service.imaging.jpeg import CUT_OFF, strip_jpeg
from service.imaging.png import drop_checksum, strip_png
from service.imaging.stripped import Stripped
from service.imaging.transparency import choose_background

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF")
"""What every browser shows, by Pillow's names. With pillow-heif, ``HEIF`` is read as well."""
FULL_OPACITY = 255
MAX_SIDE_PIXELS = 32_768
PIXEL_WEIGHTS = {"WEBP": 2, "AVIF": 4, "HEIF": 2}
"""Decoding takes up to 17, 28 and 16 bytes a pixel, and 8 in other formats: see decision 0014."""
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
    """An upright ``image`` of mode L or RGB; ``source_pixels`` counts the pixels of the file.

    ``is_cut_out``: the file has transparent parts, which are a background now.
    """

    image: Image.Image
    source_pixels: int
    is_cut_out: bool = False


def read_picture(data: bytes, max_pixels: int, shortest: int | None = None) -> Picture:
    """Read the first frame of an image file: upright, and without transparency.

    Transparent parts become white, or dark grey if the visible part is nearly white.

    With ``shortest``, a large picture is averaged down until its shorter edge is between
    ``shortest`` and twice ``shortest``, which takes less time and memory.

    Raises:
        ImageTooLargeError: The header declares more than ``max_pixels``. Nothing was decoded.
        UnreadableImageError: The bytes are not an image of an accepted format, or are damaged.
    """
    kind = _name(data)
    try:
        file = _strip(data, kind, max_pixels)
        if file.other_tail is not None:
            max_pixels //= 2  # because the image is decoded twice
        image = _open(file.data, kind, max_pixels)
        _check(image, max_pixels)
        source_pixels = image.width * image.height
        decoded, is_cut_out = _decode(image, file, shortest or min(image.size))
        return Picture(decoded, source_pixels, is_cut_out)
    except ImageError:
        raise
    except Exception as error:  # damaged files raise any exception
        raise UnreadableImageError(
            f"the {kind} image of {len(data)} bytes is damaged or incomplete; send it again"
        ) from error


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


def _name(data: bytes) -> str:
    """Return the format of an upload.

    Raises:
        UnreadableImageError: It is not a format that is read.
    """
    kind = name_format(data)
    if kind in _formats():
        return kind
    accepted = list_formats(_formats())
    if not data:
        raise UnreadableImageError(f"the upload is empty; send {accepted}")
    if what := describe(data):
        raise UnreadableImageError(f"the upload is {what}; send {accepted}")
    raise UnreadableImageError(
        f"the upload of {len(data)} bytes is not an image in an accepted format; send {accepted}"
    )


def _strip(data: bytes, kind: str, max_pixels: int) -> Stripped:
    """Copy what the pixels need; libwebp skips the rest of a WebP."""
    if kind in ("AVIF", "HEIF"):
        return Stripped(screen_heif(data, kind, max_pixels // PIXEL_WEIGHTS[kind]))
    if kind == "BMP":
        return Stripped(rewrite_bmp(data, max_pixels))
    ways = {"JPEG": strip_jpeg, "PNG": strip_png, "GIF": strip_gif}
    return ways[kind](data) if kind in ways else Stripped(data)


def _open(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    """Read the header alone."""
    try:
        return Image.open(BytesIO(data), formats=(kind,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"the {kind} image has more than the {max_pixels} pixels allowed; scale it down"
        ) from error


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


def _decode(image: Image.Image, file: Stripped, shortest: int) -> tuple[Image.Image, bool]:
    """Return the image upright, as L or RGB, and whether it had transparent parts.

    Its shorter edge is at least ``shortest`` if it was.
    """
    if file.other_tail is not None:
        _check_end(image, file.other_tail)
    elif min(image.size) > 2 * shortest:
        # A JPEG is then decoded at a half, a quarter or an eighth. Other formats ignore it.
        image.draft("RGB", (shortest, shortest))
    image = _load(image, file)
    orientation = read_orientation(file.exif or _read_exif(image))
    small, is_cut_out = _flatten(_shrink(image, shortest))
    if orientation in ORIENTATIONS:
        small = small.transpose(ORIENTATIONS[orientation])
    return small, is_cut_out


def _load(image: Image.Image, file: Stripped) -> Image.Image:
    try:
        image.load()
    except OSError:
        if image.format != "PNG":
            raise
        image = Image.open(BytesIO(drop_checksum(file.data)), formats=("PNG",))
        image.load()
    if isinstance(image, GifImagePlugin.GifImageFile) and image.dispose_extent:
        return _clear_outside(image, image.dispose_extent)
    return image


def _clear_outside(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """Make a GIF transparent outside of its first frame, where Pillow shows any colour."""
    if frame == (0, 0, *image.size):
        return image
    cleared = Image.new("RGBA", image.size)
    cleared.paste(image.crop(frame).convert("RGBA"), frame)
    return cleared


def _read_exif(image: Image.Image) -> bytes:
    """Return the EXIF of a WebP, or the turn of an AVIF or HEIC, which Pillow writes as EXIF."""
    return (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")


def _check_end(image: Image.Image, other_tail: bytes) -> None:
    """Check that a JPEG without its end marker has all pixels.

    libjpeg makes up pixels that are missing, from what follows the file.
    """
    other = Image.open(BytesIO(other_tail), formats=("JPEG",))
    if any(
        image.crop(box).tobytes() != other.crop(box).tobytes()
        for box in _bands(image.size, max(1, BAND_PIXELS // image.width))
    ):
        raise UnreadableImageError(CUT_OFF)


def _shrink(image: Image.Image, shortest: int) -> Image.Image:
    """Average a large image down, and bring 16-bit grey to 8 bits, before steps that copy it."""
    factor = max(1, min(image.size) // shortest)
    if not _is_deep(image) and factor == 1:
        return image
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.reduce(factor)
    # Bands of rows are copied, one at a time: copies of a whole image can take a gigabyte.
    boxes = _bands(image.size, factor * max(1, BAND_PIXELS // (factor * image.width)))
    bands = [_reduce(_to_8_bit(image.crop(box)), factor) for box in boxes]
    shrunk = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for box, band in zip(boxes, bands, strict=True):
        shrunk.paste(band, (0, box[1] // factor))
    return shrunk


def _bands(size: tuple[int, int], rows: int) -> list[tuple[int, int, int, int]]:
    """Return the boxes of bands of ``rows`` rows."""
    width, height = size
    return [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]


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


def _flatten(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image without transparency, and whether it had any."""
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("RGB"), False
    rgba = image.convert("RGBA")
    background = Image.new("RGBA", rgba.size, choose_background(rgba))
    flat = Image.alpha_composite(background, rgba).convert("RGB")
    translucent = rgba.getchannel("A").histogram()[:FULL_OPACITY]
    return flat, any(translucent)
