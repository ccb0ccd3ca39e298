"""Takes from a JPEG file its first picture, without what is not about pixels.

Source: ITU-T T.81, annex B. Knows nothing about Pillow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from service.errors import UnreadableImageError
from service.imaging.stripped import Stripped

START, END = b"\xff\xd8", b"\xff\xd9"
MAX_SCANS = 100  # ten are usual; each scan covers all pixels, even if it has few bytes
MAX_SEGMENTS = 1000  # of tables and scans
SCAN, END_KIND, JFIF, EXIF, ADOBE = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE
FIRST_KIND = 0xC0  # the kinds before it are reserved
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
CODINGS = {
    **dict.fromkeys((0xC3, 0xC7), "lossless"),
    **dict.fromkeys((0xC5, 0xC6), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "in arithmetic coding"),
    0xF7: "a JPEG-LS",
}
"""The kinds of frames that browsers do not show."""
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # without those that have no segment
MARKS = {JFIF: (b"JFIF\0", 18), ADOBE: (b"Adobe", 16), EXIF: (b"Exif\0", 10)}
"""Segments of applications that are needed: how they begin, and their least length. By the first
two, libjpeg tells which colours the components are."""
SKIPPED = {*range(0xE0, 0xF0), 0xFE} - MARKS.keys()
SHORT_LENGTHS = range(2, 32)  # of segments that a pattern skips
CONTENT_AT, COMPONENTS_AT = 4, 6  # in a segment, and in the content of a frame's segment
PROGRESSIVE, LOW_BIT_MASK = 0xC2, 0x0F
COEFFICIENTS = 64  # of a block
ALL_COEFFICIENTS = 2**COEFFICIENTS - 1
RESTARTS = [bytes([0xFF, kind]) for kind in range(0xD0, 0xD8)]
CUT_OFF = "the JPEG image is incomplete: the file ends before its last pixels; send it again"
FILLER = bytes((165 + 167 * number) % 255 for number in range(256))  # it holds no marker


def strip_jpeg(data: bytes) -> Stripped:
    """Copy the first picture of a JPEG, and find its EXIF.

    Segments of applications and comments are left out, except those that libjpeg needs to tell
    the colours. If the end marker is missing, the copy gets one, and ``other_tail`` is set.

    Raises:
        UnreadableImageError: The picture is coded in a way that browsers do not show, has too many
            scans, or ends before its last scan.
    """
    picture, end, has_end = _Picture(), len(START), False
    while (found := MARKER.search(data, end)) and not has_end:
        start, kind, length_at = found.start(), data[found.end() - 1], found.end()
        if kind < FIRST_KIND and picture.scans:
            break  # what follows the scans is not JPEG
        end = length_at + max(2, int.from_bytes(data[length_at : length_at + 2]))
        if kind in SKIPPED or kind in MARKS:
            if kind in MARKS:
                picture.add_mark(kind, data[start:end])
            end = _skip(data, end, picture.wanted_marks())
        elif kind == END_KIND:
            has_end = True
        else:
            content = data[length_at + 2 : end]
            if kind == SCAN:
                end = following.start() if (following := MARKER.search(data, end)) else len(data)
            picture.add(kind, content, memoryview(data)[start:end])
    copy = b"".join((START, *picture.marks.values(), *picture.parts))
    if has_end:
        return Stripped(copy + END, picture.exif)
    if picture.lacks_coefficients():
        raise UnreadableImageError(CUT_OFF)
    copy = copy.rstrip(b"\xff")
    scan = bytes(picture.parts[-1]) if picture.parts else b""
    restarts = sum(map(scan.count, RESTARTS))
    next_restart = bytes([0xFF, 0xD0 + restarts % 8])
    return Stripped(copy + END, picture.exif, copy + FILLER + next_restart + FILLER + END)


@dataclass
class _Picture:
    """What a decoder needs of the segments that were read so far."""

    exif: bytes | None = None
    marks: dict[int, bytes] = field(default_factory=dict)
    marks_read: int = 0
    parts: list[memoryview] = field(default_factory=list)
    scans: int = 0
    is_progressive: bool = False
    missing: dict[int, int] = field(default_factory=dict)
    """By component: a bit for each coefficient that no scan has completed yet."""

    def add_mark(self, kind: int, segment: bytes) -> None:
        """Keep an application's segment if libjpeg needs it, and the first EXIF."""
        beginning, least_bytes = MARKS[kind]
        if len(segment) < least_bytes or not segment.startswith(beginning, CONTENT_AT):
            return
        if kind != EXIF:
            self.marks[kind] = segment
            self.marks_read += 1
            _check_count(self.marks_read)
        elif self.exif is None and not self.scans:
            self.exif = segment[least_bytes:]

    def wanted_marks(self) -> frozenset[int]:
        """Return the kinds of marks that still matter. Of ADOBE, the last one does."""
        wanted = {ADOBE}
        if JFIF not in self.marks:
            wanted.add(JFIF)
        if self.exif is None and not self.scans:
            wanted.add(EXIF)
        return frozenset(wanted)

    def add(self, kind: int, content: bytes, segment: memoryview) -> None:
        """Keep a segment that libjpeg needs, with the data that follow it."""
        self.parts.append(segment)
        _check_count(len(self.parts))
        if kind in FRAMES:
            _check_coding(kind, content)
            self.is_progressive = kind == PROGRESSIVE
            self.missing = dict.fromkeys(content[COMPONENTS_AT::3], ALL_COEFFICIENTS)
        if kind == SCAN:
            self._add_scan(content)

    def _add_scan(self, scan: bytes) -> None:
        self.scans += 1
        if self.scans > MAX_SCANS:
            raise UnreadableImageError(
                f"the JPEG image has more than {MAX_SCANS} scans; ten are usual; save it anew"
            )
        limits_at = 1 + 2 * scan[0] if scan else 0
        first, last, bits = (*scan[limits_at : limits_at + 3], 0, 0, 0)[:3]
        if self.is_progressive and (bits & LOW_BIT_MASK or last >= COEFFICIENTS):
            return
        complete = (2 << last) - (1 << first) if self.is_progressive else ALL_COEFFICIENTS
        for component in scan[1:limits_at:2]:
            self.missing[component] = self.missing.get(component, 0) & ~complete

    def lacks_coefficients(self) -> bool:
        return any(self.missing.values())


def _skip(data: bytes, place: int, wanted: frozenset[int]) -> int:
    """Return where a row of segments ends that are not needed.

    There may be millions of short ones, so a pattern skips these: a loop takes five times as long.
    """
    short = _compile_short(wanted)
    while True:
        if match := short.match(data, place):
            place = match.end()
        kind = (
            data[place + 1] if data[place : place + 1] == b"\xff" and place + 4 <= len(data) else 0
        )
        if kind in wanted:
            if data.startswith(MARKS[kind][0], place + CONTENT_AT):
                return place
        elif kind not in SKIPPED and kind not in MARKS:
            return place
        place += 2 + max(2, data[place + 2] << 8 | data[place + 3])


@cache
def _compile_short(wanted: frozenset[int]) -> re.Pattern[bytes]:
    """Return a pattern of short segments that are not needed, and of bytes that are no segment."""
    kinds = [re.escape(bytes([kind])) for kind in sorted(SKIPPED | MARKS.keys() - wanted)]
    for kind in sorted(wanted):
        beginning, least_bytes = MARKS[kind]
        is_needed = rb"\0[\x%02x-\xff]%b" % (least_bytes - 2, beginning)
        kinds.append(re.escape(bytes([kind])) + rb"(?!%b)" % is_needed)
    contents = [re.escape(bytes([length])) + rb".{%d}" % (length - 2) for length in SHORT_LENGTHS]
    segment = rb"\xff++(?:%b)\0(?:[\0\1]|%b)" % (b"|".join(kinds), b"|".join(contents))
    # Not *+: before 3.11.5, Python's possessive loops go wrong after a lookahead in them.
    return re.compile(rb"(?:[^\xff]++|\xff++[\0\1\xd0-\xd7]|%b){0,1000}" % segment, re.DOTALL)


def _check_count(segments: int) -> None:
    if segments > MAX_SEGMENTS:
        raise UnreadableImageError(
            f"the JPEG image has more than {MAX_SEGMENTS} tables; ten are usual; save it anew"
        )


def _check_coding(kind: int, content: bytes) -> None:
    coding = CODINGS.get(kind)
    if coding is None and content and content[0] != 8:
        coding = f"of {content[0]} bits a sample"
    if coding:
        raise UnreadableImageError(
            f"the JPEG image is {coding}, which browsers do not show; save it as a common JPEG"
        )
