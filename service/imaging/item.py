"""Find the item in a photo: which pixels are garment, which are background, and what is doubtful.

Pure arithmetic on colours. Knows nothing about files, the model or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float32]
"""Lab: ``[height, width, 3]``, or one colour ``[3]``."""
Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]
Counts = NDArray[np.float64]
Doubt = Literal["no item", "cut off", "cluttered", "worn"]

BORDER_SHARE = 0.03  # of the longer side
LEAST_CONTRAST = 4.0  # in units of Lab; a distance of two is just visible
ROUNDS = 3
PLACE_WEIGHT, CONTRAST_WEIGHT = 0.5, 0.2  # the colours have the weight 1
LARGEST_LOG_RATIO = 3.0
OTSU_BINS = 64
LOW, HIGH, CELLS = (0, -64, -64), (100, 64, 64), (8, 16, 16)  # of histograms of Lab colours
PAPER_SHARE = 0.35  # of the threshold, on near-white: a smaller share would include shadows
PIECE_SHARE = 0.25  # of the largest piece: smaller pieces are not part of the item
LEAST_AREA, LARGEST_AREA = 0.02, 0.98  # of the photo
LEAST_FRAMED_SHARE = 0.7  # of height and width: a smaller rectangle is an item, not a framed photo
FRAMED_EDGE_SHARE = 0.97
CUT_OFF_SHARE = 0.1  # of an edge
CLUTTERED_QUALITY, CLUTTERED_SHARE = 0.75, 0.06
SKIN_SHARES = 0.02, 0.5  # of the item: with more, it is a garment of that colour


@dataclass(frozen=True)
class Item:
    """What was found in a photo of colours ``lab`` ``[height, width, 3]``.

    ``mask`` ``[height, width]`` is true on the item. ``opacity`` is between 0 and 1, so that the
    outline is smooth. ``background`` is the colour of most of the border. ``quality`` from 0 to 1
    says how clearly the colours separate item and background; at 0 no item was found, and the
    whole photo counts as the item. ``other_share`` is the share of the photo that is neither the
    item nor like the border.
    """

    lab: Colours
    mask: Mask
    opacity: Plane
    background: Colours
    quality: float
    other_share: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels of the mask, to fractions: at an opacity of 0.5."""
        (left, right), (top, bottom) = (_extent(self.opacity.max(axis=axis)) for axis in (0, 1))
        return left, top, right, bottom

    @property
    def is_darker_than_background(self) -> bool:
        """Whether the item's median lightness is below the background's."""
        return bool(_median(self.lab[self.mask, 0]) < self.background[0])

    @property
    def is_cut_off(self) -> bool:
        """Whether an item was found, and touches an edge of the photo over some length."""
        edges = self.mask[0], self.mask[-1], self.mask[:, 0], self.mask[:, -1]
        return self.quality > 0 and any(edge.mean() > CUT_OFF_SHARE for edge in edges)

    @property
    def is_cluttered(self) -> bool:
        """Whether colours do not separate an item, or other things are on the background."""
        return 0 < self.quality < CLUTTERED_QUALITY or self.other_share > CLUTTERED_SHARE

    @property
    def warnings(self) -> tuple[Doubt, ...]:
        """The reasons to doubt the answer."""
        found: dict[Doubt, bool] = {
            "no item": self.quality == 0,
            "cut off": self.is_cut_off,
            "cluttered": self.is_cluttered,
            "worn": self.is_worn,
        }
        return tuple(doubt for doubt, is_given in found.items() if is_given)

    @property
    def is_worn(self) -> bool:
        """Whether some of the item has the colour of skin, and touches the top or the bottom."""
        lightness, a, b = np.moveaxis(self.lab[self.mask], -1, 0)
        chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a))
        skin = (abs(lightness - 59) < 29) & (abs(chroma - 27) < 15) & (abs(hue - 54) < 24)
        has_skin = SKIN_SHARES[0] < skin.mean() < SKIN_SHARES[1]
        return bool(has_skin and self.mask[[0, -1]].any())


def find_item(lab: Colours) -> Item:
    """Find the one item in a photo of Lab colours ``[height, width, 3]``; a frame is left out."""
    inside = _inside_frame(lab)
    part = _find(lab[inside])
    if part.mask.shape == lab.shape[:2]:
        return part
    outside = tuple(
        (edge.start, size - edge.stop) for edge, size in zip(inside, lab.shape, strict=False)
    )
    return replace(
        part, lab=lab, mask=np.pad(part.mask, outside), opacity=np.pad(part.opacity, outside)
    )


def _inside_frame(lab: Colours) -> tuple[slice, slice]:
    """Return the rows and columns inside a frame, or bars, of one colour; all of them without one.

    A framed photo differs from its frame along all edges. An item on a background hardly does.
    """
    height, width = lab.shape[:2]
    unlike = _square_distances(lab, lab[:1, 0])[0] > LEAST_CONTRAST**2
    rows, columns = np.flatnonzero(unlike.any(axis=1)), np.flatnonzero(unlike.any(axis=0))
    if len(rows) < LEAST_FRAMED_SHARE * height or len(columns) < LEAST_FRAMED_SHARE * width:
        return slice(0, height), slice(0, width)
    # The outermost pixel is left out: it mixes photo and frame.
    top, left = (int(found[0] + 1) if found[0] else 0 for found in (rows, columns))
    bottom, right = (
        int(found[-1]) if found[-1] < size - 1 else size
        for found, size in ((rows, height), (columns, width))
    )
    inner = unlike[top:bottom, left:right]
    edges = (
        (inner[0], top),
        (inner[-1], bottom < height),
        (inner[:, 0], left),
        (inner[:, -1], right < width),
    )
    if all(edge.mean() > FRAMED_EDGE_SHARE for edge, is_framed in edges if is_framed):
        return slice(top, bottom), slice(left, right)
    return slice(0, height), slice(0, width)


def _find(lab: Colours) -> Item:
    """Separate item and background by their colours.

    At first, pixels like the border are background and the others are item, by Otsu's threshold.
    Then item and background are described by histograms of their colours, each pixel is assigned
    to the likelier one, and both steps repeat, as in GrabCut (Rother et al. 2004), with a blur
    instead of its graph cut. The largest connected pieces are the item.
    """
    background, distance = _compare_with_border(lab)
    threshold = max(_otsu(distance), LEAST_CONTRAST)
    contrast = np.clip(4 * (distance / threshold - 1), -3, 3)
    place = PLACE_WEIGHT * _place(distance.shape)
    belief, prior = contrast + place, CONTRAST_WEIGHT * contrast + place
    cells = _quantize(lab)
    all_pixels = np.bincount(cells.ravel(), minlength=np.prod(CELLS)).astype(np.float64)
    for _ in range(ROUNDS):
        belief = _blur(_compare_colours(cells, all_pixels, _sigmoid(belief))) + prior
    opacity = np.clip((1 + belief) / 2, 0, 1) * _grow(_open(belief > 0))
    if _is_like_paper(background, distance):
        # On paper every difference is item, even a small one: pale sleeves, thin straps.
        paper_threshold = max(PAPER_SHARE * threshold, LEAST_CONTRAST)
        opacity = np.maximum(opacity, np.clip(distance / paper_threshold - 0.5, 0, 1))
    mask = _keep_largest(opacity > 0.5, opacity)
    if distance.max() < LEAST_CONTRAST or not LEAST_AREA < mask.mean() < LARGEST_AREA:
        return Item(lab, np.ones_like(mask), np.ones_like(belief), background, 0.0, 0.0)
    quality = float(abs(np.tanh(belief)).mean())
    other_share = float(((distance > threshold) & ~mask).mean())
    return Item(lab, mask, opacity * _grow(mask), background, quality, other_share)


def _extent(profile: Plane) -> tuple[float, float]:
    """Return where a profile first rises above 0.5 and last falls below it, in parts of pixels."""

    def start(values: Plane) -> np.float32:
        first = int(np.argmax(values > 0.5))
        if not first:
            return np.float32(0)
        step = values[first] - values[first - 1]
        return np.float32(first + 0.5 - (values[first] - 0.5) / step)

    return float(start(profile)), float(len(profile) - start(profile[::-1]))


def _compare_with_border(lab: Colours) -> tuple[Colours, Plane]:
    """Return the colour of most of the border, and the distance of each pixel from that colour.

    The colours of the four corners count as well; the nearest colour decides.
    """
    depth = max(1, round(BORDER_SHARE * max(lab.shape)))
    edges = lab[:depth], lab[-depth:], lab[:, :depth], lab[:, -depth:]
    border = _median(np.concatenate([edge.reshape(-1, 3) for edge in edges]))
    # Photos often have two backgrounds, a floor and a wall. A cut-off item leaves corners free.
    first, last = slice(2 * depth), slice(-2 * depth, None)
    corners = lab[first, first], lab[first, last], lab[last, first], lab[last, last]
    backgrounds = np.stack([border, *(_median(corner.reshape(-1, 3)) for corner in corners)])
    return border, np.sqrt(_square_distances(lab, backgrounds).min(axis=0))


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median along the first axis; on few values NumPy takes four times as long."""
    ordered = np.sort(values, axis=0)
    return np.asarray((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _square_distances(lab: Colours, colours: Colours) -> Plane:
    """Return squared distances ``[n, height, width]`` of the pixels from ``colours`` ``[n, 3]``."""
    pixels = lab.transpose(2, 0, 1).reshape(3, -1)
    # |c|^2 - 2 c.p + |p|^2: a product of matrices is several times as fast as the differences.
    own_squares = (colours**2).sum(axis=1, keepdims=True)
    squares = own_squares - 2 * colours @ pixels + np.einsum("cn,cn->n", pixels, pixels)
    return np.asarray(np.maximum(squares, 0).reshape(len(colours), *lab.shape[:2]))


def _is_like_paper(background: Colours, distance: Plane) -> bool:
    """Whether the background is near-white and even."""
    border = np.concatenate([distance[0], distance[-1], distance[:, 0], distance[:, -1]])
    is_near_white = background[0] > 85 and abs(background[1:]).max() < 8
    return bool(is_near_white and (border < LEAST_CONTRAST / 2).mean() > 0.9)


def _otsu(values: Plane) -> float:
    """Return the threshold that best separates values of 0 and more into two groups (Otsu 1979)."""
    width = max(float(values.max()) / OTSU_BINS, 1e-6)
    counts = np.bincount((values / width).astype(np.intp).ravel(), minlength=OTSU_BINS + 1)
    below, sums = counts.cumsum(), (counts * np.arange(len(counts))).cumsum()
    pairs = np.maximum(below * (below[-1] - below), 1)
    between = (sums * below[-1] - sums[-1] * below) ** 2 / pairs
    return float((1 + between[:-1].argmax()) * width)


@lru_cache(maxsize=64)
def _place(shape: tuple[int, ...]) -> Plane:
    """Return the log odds of item by place alone: 0.8 in the middle, 0.02 at the border."""
    rows, columns = (abs(np.linspace(-1, 1, size, dtype=np.float32)) for size in shape)
    share = np.clip(0.8 * (1 - np.maximum(rows[:, None], columns) ** 4), 0.02, None)
    return np.asarray(np.log(share / (1 - share)))


def _quantize(lab: Colours) -> NDArray[np.intp]:
    """Return the number of each pixel's cell in the histograms."""
    numbers = np.zeros(lab.shape[:2], np.intp)
    for axis, (low, high, cells) in enumerate(zip(LOW, HIGH, CELLS, strict=True)):
        cell = ((lab[..., axis] - low) * (cells / (high - low))).astype(np.int32)
        numbers = numbers * cells + cell.clip(0, cells - 1)
    return numbers


def _compare_colours(cells: NDArray[np.intp], all_pixels: Counts, shares: Plane) -> Plane:
    """Return the log ratio of how frequent each pixel's colour is in item and background."""
    in_item = np.bincount(cells.ravel(), shares.ravel(), len(all_pixels))
    pair = np.stack([in_item, all_pixels - in_item])
    frequencies = pair / pair.sum(axis=1, keepdims=True)
    item, background = _smooth(frequencies.reshape(2, *CELLS)).reshape(2, -1) + 2e-4
    ratio = np.log(item / background).clip(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return np.asarray(ratio.astype(np.float32).take(cells))


def _smooth(histograms: Counts) -> Counts:
    """Give each neighbour of a cell a quarter of it, along each axis but the first."""
    along_l, along_a, along_b = (_sharing(cells) for cells in CELLS)
    shared = along_a @ histograms @ along_b.T
    by_lightness = shared.reshape(len(shared), len(along_l), -1)
    return np.asarray((along_l @ by_lightness).reshape(shared.shape))


@lru_cache(maxsize=len(CELLS))
def _sharing(cells: int) -> NDArray[np.float64]:
    """Return the matrix with which cells keep a half and give each neighbour a quarter."""
    return (2 * np.eye(cells) + np.eye(cells, k=1) + np.eye(cells, k=-1)) / 4


def _sigmoid(values: Plane) -> Plane:
    return np.asarray(1 / (1 + np.exp(-values)))


def _blur(values: Plane) -> Plane:
    """Average over 3 x 3 pixels; the pixels at the border continue outside."""
    rows, columns = (np.arange(-1, size + 1).clip(0, size - 1) for size in values.shape)
    padded = values[rows][:, columns]
    sums = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((sums[:, :-2] + sums[:, 1:-1] + sums[:, 2:]) / 9)


def _open(mask: Mask) -> Mask:
    """Remove parts that are thinner than three pixels."""
    return _grow(~_grow(~mask))


def _grow(mask: Mask) -> Mask:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _keep_largest(mask: Mask, weights: Plane) -> Mask:
    """Keep the connected piece of the largest weight, and pieces of at least PIECE_SHARE of it."""
    pieces = _label(mask)
    sums = np.bincount(pieces.ravel(), (weights * mask).ravel())
    return np.asarray(mask & (sums >= PIECE_SHARE * sums.max())[pieces])


def _label(mask: Mask) -> NDArray[np.intp]:
    """Number the connected pieces of a mask from 1; the rest is 0.

    Each run of pixels in a row is joined with the runs that it touches in the row above (two-pass
    labelling, Rosenfeld and Pfaltz 1966).
    """
    height, width = mask.shape
    edged = np.zeros((height, width + 2), np.int8)
    edged[:, 1:-1] = mask
    steps = edged[:, 1:] - edged[:, :-1]
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    first_of_row = np.searchsorted(rows, np.arange(height + 1))
    parents = _join(starts.tolist(), ends.tolist(), first_of_row.tolist())
    numbers = np.zeros(steps.shape, np.intp)
    numbers[rows, starts] = np.array(parents, np.intp) + 1
    numbers[rows, ends] -= np.array(parents, np.intp) + 1
    return np.asarray(numbers.cumsum(axis=1)[:, :-1])


def _join(starts: list[int], ends: list[int], first_of_row: list[int]) -> list[int]:
    """Return the first run of the piece that each run belongs to."""
    parents = list(range(len(starts)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    for above, here, end in zip(first_of_row, first_of_row[1:], first_of_row[2:], strict=False):
        upper, lower = above, here
        while upper < here and lower < end:
            if starts[upper] < ends[lower] and starts[lower] < ends[upper]:
                first, second = sorted((root(upper), root(lower)))
                parents[second] = first
            if ends[upper] < ends[lower]:
                upper += 1
            else:
                lower += 1
    return [root(run) for run in range(len(parents))]
