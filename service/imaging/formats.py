"""Tells by the first bytes of a file which format it is in. Knows nothing about Pillow."""

from __future__ import annotations

from collections.abc import Sequence

from service.imaging import gif, jpeg, png
from service.imaging.heif import name_heif

OTHER_FORMATS = {
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"II+\0": "a TIFF image",
    b"MM\0+": "a TIFF image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"8BPS": "a Photoshop image",
    b"gimp xcf": "a GIMP image",
    b"\0\0\1\0": "an icon",
    b"\0\0\2\0": "a cursor",
    b"qoif": "a QOI image",
    b"DDS ": "a DDS image",
    b"v/1\1": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance image",
    b"\x8aMNG": "an MNG animation",
    b"FUJIFILM": "a raw photo of a camera",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x1a\x45\xdf\xa3": "a video",
    b"data:": "a data URL, not the bytes of an image",
    b"iVBORw0KGgo": "an image in Base64, not its bytes",
    b"/9j/": "an image in Base64, not its bytes",
}
"""The first bytes of files that are not read, and what the files are."""
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
"""The lengths that the second header of a BMP may have."""
TEXT_START_BYTES = 1000  # in which a text says what it is


def name_format(data: bytes) -> str | None:
    """Return the format of a file by Pillow's name, or None if it is not one that is read."""
    if data.startswith(jpeg.START + b"\xff"):
        return "JPEG"
    if data.startswith(png.START):
        return "PNG"
    if data.startswith(gif.STARTS):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in BMP_HEADERS:
        return "BMP"
    return name_heif(data)


def describe(data: bytes) -> str | None:
    """Say what a file is that is not read, or return None if it is unknown."""
    for start, what in OTHER_FORMATS.items():
        if data.startswith(start):
            return what
    if data[4:8] == b"ftyp":
        return "a HEIC image" if name_heif(data) else "a video"
    text = data[:TEXT_START_BYTES].lower()
    if b"<svg" in text:
        return "an SVG drawing"
    if b"<html" in text or b"<!doctype html" in text:
        return "an HTML page"
    return None


def list_formats(formats: Sequence[str]) -> str:
    """List formats, by Pillow's names, as people write them."""
    names = {"WEBP": "WebP", "HEIF": "HEIC"}
    *others, last = (names.get(name, name) for name in formats)
    return f"{', '.join(others)} or {last}"
