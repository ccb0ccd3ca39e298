"""The part of an image file that its pixels need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stripped:
    """A copy of a file without what is not about pixels, and the EXIF that the file has.

    ``other_tail`` is set if the end of the file is missing: it is ``data`` with other bytes at its
    end. If both decode to the same pixels, no pixels are missing.
    """

    data: bytes
    exif: bytes | None = None
    other_tail: bytes | None = None
