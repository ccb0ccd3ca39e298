"""What the coded pictures of AVIF and HEIC files say about themselves, read without a decoder.

Sources: the AV1 Bitstream & Decoding Process Specification, sections 5.3 to 5.9; ITU-T H.265,
section 7.3. All functions raise ValueError or LookupError where the data is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import UnreadableImageError

MAX_ZEROS = 32  # before a number of AV1, whose decoders read no more
MAX_UNITS = 8192  # of all pictures of a file; a file of 1,000 tiles has 4,000
AV1_SEQUENCE_HEADER, AV1_FRAMES = 1, {3, 6, 7}  # kinds of units
KEY_FRAME, SWITCH_FRAME = 0, 3
MAX_LAYERS = 4  # of a progressive AVIF, each of which is a frame
CHOSEN_BY_FRAME = 2
HEVC_HEADER_BYTES, HEVC_LENGTH_AT, HEVC_LENGTH_BYTES = 22, 21, 4
LARGEST_HEVC_SLICE = 31  # kinds of units up to this one hold pixels
FIRST_SLICE = 0x80  # bit of a slice with which a frame begins


class Bits:
    """Reads bytes as numbers of some bits each."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> int:
        """Read the next ``count`` bits."""
        first, self._at = self._at, self._at + count
        if self._at > 8 * len(self._data):
            raise ValueError
        value = int.from_bytes(self._data[first // 8 : (self._at + 7) // 8])
        return value >> (-self._at % 8) & ((1 << count) - 1)


@dataclass(frozen=True)
class _Sequence:
    """An AV1 sequence header; where a value is ``CHOSEN_BY_FRAME``, each frame has its own."""

    pixels: int
    is_still: bool
    screen_tools: int = CHOSEN_BY_FRAME
    integer_motion: int = CHOSEN_BY_FRAME


def read_av1_pixels(content: memoryview, units_left: Iterator[int]) -> int:
    """Return how many pixels the decoder makes of an AV1 picture, all its layers together.

    ``units_left`` counts down, over all pictures of a file, how many units may follow.

    Raises:
        UnreadableImageError: The picture has more frames than there are layers.
    """
    units = list(_av1_units(content, units_left))
    (header,) = (unit for kind, unit in units if kind == AV1_SEQUENCE_HEADER)
    frames = [unit for kind, unit in units if kind in AV1_FRAMES]
    _check_frames(len(frames), MAX_LAYERS)
    sequence = _read_sequence_header(Bits(header))
    for number, frame in enumerate(frames):
        if not sequence.is_still:
            _check_frame_header(Bits(frame), sequence, is_first=not number)
    return sequence.pixels * len(frames)


def check_hevc_picture(content: memoryview, units_left: Iterator[int]) -> None:
    """Check that an HEVC picture has one frame; libheif checks the size of that frame.

    For ``units_left`` see ``read_av1_pixels``.

    Raises:
        UnreadableImageError: The picture has several frames.
    """
    frames, place = 0, 0
    for _ in units_left:
        if place == len(content):
            return _check_frames(frames, 1)
        start = place + HEVC_LENGTH_BYTES
        place = start + int.from_bytes(content[place:start])
        unit = content[start:place]
        if _holds_pixels(unit) and unit[2] & FIRST_SLICE:
            frames += 1
    raise ValueError


def check_hevc_header(content: memoryview) -> None:
    """Check that the header of an HEVC picture (hvcC) holds no frame."""
    if content[HEVC_LENGTH_AT] & 3 != HEVC_LENGTH_BYTES - 1:
        raise ValueError
    place = HEVC_HEADER_BYTES + 1
    for _ in range(content[HEVC_HEADER_BYTES]):
        units, place = int.from_bytes(content[place + 1 : place + 3]), place + 3
        for _ in range(units):
            if _holds_pixels(content[place + 2 :]):
                raise ValueError
            place += 2 + int.from_bytes(content[place : place + 2])


def _holds_pixels(unit: memoryview) -> bool:
    return unit[0] >> 1 & 0x3F <= LARGEST_HEVC_SLICE


def _check_frames(frames: int, most: int) -> None:
    if frames > most:
        raise UnreadableImageError(
            f"the image has a picture of {frames} frames; at most {most} are read; save it anew"
        )
    if not frames:
        raise ValueError


def _av1_units(content: memoryview, units_left: Iterator[int]) -> Iterator[tuple[int, memoryview]]:
    """Return the kind and the content of each unit (OBU)."""
    place = 0
    for _ in units_left:
        if place == len(content):
            return
        head = content[place]
        has_extension, has_size = head & 4, head & 2
        place += 2 if has_extension else 1
        size = len(content) - place
        if has_size:
            size, place = _read_leb128(content, place)
        if place + size > len(content):
            break
        yield head >> 3 & 15, content[place : place + size]
        place += size
    raise ValueError


def _read_leb128(content: memoryview, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = 0
    for number in range(8):
        byte = content[place + number]
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return value, place + number + 1
    raise ValueError


def _read_sequence_header(bits: Bits) -> _Sequence:
    bits.read(4)  # profile, still picture
    is_still = bool(bits.read(1))
    if is_still:
        bits.read(5)  # level
    else:
        _skip_timing(bits)
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    pixels = (bits.read(width_bits) + 1) * (bits.read(height_bits) + 1)
    if is_still:
        return _Sequence(pixels, is_still)
    if bits.read(1):  # frames have numbers, which no encoder of pictures writes
        raise ValueError
    bits.read(7)  # switches of tools
    if bits.read(1):  # frames have an order
        bits.read(2)
    screen_tools = CHOSEN_BY_FRAME if bits.read(1) else bits.read(1)
    if not screen_tools or bits.read(1):
        return _Sequence(pixels, is_still, screen_tools)
    return _Sequence(pixels, is_still, screen_tools, integer_motion=bits.read(1))


def _skip_timing(bits: Bits) -> None:
    if bits.read(1):
        bits.read(64)
        if bits.read(1):  # a number with as many leading zeros as it has bits
            zeros = next((n for n in range(MAX_ZEROS) if bits.read(1)), None)
            if zeros is None:
                raise ValueError
            bits.read(zeros)
        if bits.read(1):  # a model of the decoder, which no encoder of pictures writes
            raise ValueError


def _skip_operating_points(bits: Bits) -> None:
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        level = bits.read(5)
        if level > 7:
            bits.read(1)
        if has_delay and bits.read(1):
            bits.read(4)


def _check_frame_header(bits: Bits, sequence: _Sequence, *, is_first: bool) -> None:
    """Check that a frame has the size of its sequence, and that the first needs no other frame."""
    shows_another, kind, is_shown = bits.read(1), bits.read(2), bits.read(1)
    is_shown_key = kind == KEY_FRAME and is_shown
    if shows_another or kind == SWITCH_FRAME or (is_first and not is_shown_key):
        raise ValueError
    if not is_shown:
        bits.read(1)  # may be shown later
    if not is_shown_key:
        bits.read(1)  # resilient to errors
    bits.read(1)  # fixed probabilities
    chosen = bits.read(1) if sequence.screen_tools == CHOSEN_BY_FRAME else sequence.screen_tools
    if chosen and sequence.integer_motion == CHOSEN_BY_FRAME:
        bits.read(1)
    if bits.read(1):  # a size of its own
        raise ValueError
