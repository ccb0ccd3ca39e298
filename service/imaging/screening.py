"""Reject JPEG and PNG files that cost a decoder far more than their pixels.

Pillow and libjpeg trust what a file says about itself, so a few bytes can cost gigabytes or
minutes: see docs/decisions/0014-screen-files-before-they-are-decoded.md. Knows nothing about
Pillow.
"""

from __future__ import annotations

import numpy as np

from service.errors import UnreadableImageError

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
MAX_JPEG_SCANS = 100  # ten are usual; each scan covers all pixels, even if it has few bytes
MAX_JPEG_SEGMENTS = 65_536  # of applications and comments: Pillow makes an object of each
MAX_PIECES = 64  # of a colour profile or EXIF: Pillow unpacks each, or appends it to those before
SCAN, APPLICATION_1, COMMENT = 0xDA, 0xE1, 0xFE
# Tables by the value of a byte are several times as fast as ``np.isin``.
IS_SCAN_SIZE, IS_FRAME_SIZE, IS_PRECISION, IS_ARITHMETIC_FRAME, IS_SEGMENT = (
    np.isin(np.arange(256), values)
    for values in (
        (8, 10, 12, 14),  # of a header for 1 to 4 components
        (11, 14, 17, 20),
        (8, 12),
        (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF),
        (*range(0xE0, 0xF0), COMMENT),
    )
)


def screen(data: bytes) -> None:
    """Check a JPEG or PNG file; files of other formats pass.

    Raises:
        UnreadableImageError: Its decoder would do far more work than its pixels need.
    """
    if data.startswith(JPEG_START):
        _screen_jpeg(data)
    elif data.startswith(PNG_START):
        _screen_png(data)


def _screen_png(data: bytes) -> None:
    if (profiles := data.count(b"iCCP")) > MAX_PIECES:
        raise UnreadableImageError(
            f"the PNG image has {profiles} colour profiles; one is usual; save it anew"
        )


def _screen_jpeg(data: bytes) -> None:
    # Within a scan the first byte of a marker is escaped, so every marker found is a real one.
    # Phones append a film to some photos. Its bytes contain markers by chance, but hardly ever
    # with the size of a header after them.
    values = np.frombuffer(data, np.uint8)
    places = np.flatnonzero((values[:-4] == 0xFF) & (values[1:-3] >= 0xC0) & (values[1:-3] != 0xFF))
    kinds, highs, lows, next_values = (values[places + offset] for offset in (1, 2, 3, 4))
    scans = np.count_nonzero((kinds == SCAN) & (highs == 0) & IS_SCAN_SIZE[lows])
    segments = np.count_nonzero(IS_SEGMENT[kinds])
    if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
        raise UnreadableImageError(
            f"the JPEG image has {scans} scans and {segments} segments; at most {MAX_JPEG_SCANS} "
            f"and {MAX_JPEG_SEGMENTS} are read; save it anew"
        )
    pieces = sum(
        data.startswith(b"Exif\0\0", place + 4) for place in places[kinds == APPLICATION_1].tolist()
    )
    if pieces > MAX_PIECES:
        raise UnreadableImageError(
            f"the JPEG image has EXIF in {pieces} segments; one is usual; save it anew"
        )
    is_frame = (highs == 0) & IS_FRAME_SIZE[lows] & IS_PRECISION[next_values]
    if (IS_ARITHMETIC_FRAME[kinds] & is_frame).any():
        raise UnreadableImageError(
            "the JPEG image is in arithmetic coding, which takes long to read; save it anew"
        )
