"""Own the finding of the item in a photo: which pixels are garment and which are ground, and what speaks against it.

Pure arithmetic on colours. Must know nothing of files, of the model or of HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float32]
"""Lab: ``[height, width, 3]``, or a single colour ``[3]``."""
Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]
Counts = NDArray[np.float64]
Doubt = Literal["no item", "cut off", "cluttered", "worn"]

BORDER_SHARE = 0.03  # of the longer side
LEAST_CONTRAST = 4.0  # in Lab's units; two are just visible
ROUNDS = 3
PLACE_WEIGHT, CONTRAST_WEIGHT = 0.5, 0.2  # beside the colours' weight of 1
LARGEST_LOG_RATIO = 3.0
OTSU_BINS = 64
LOW, HIGH, CELLS = (0, -64, -64), (100, 64, 64), (8, 16, 16)  # of the histograms of Lab colours
PAPER_SHARE = 0.35  # of the threshold, on near-white: less would take in more of the shadows
PIECE_SHARE = 0.25  # of the largest: a smaller piece is not the item's
LEAST_AREA, LARGEST_AREA = 0.02, 0.98  # of the photo
LEAST_FRAMED_SHARE = (
    0.7  # of height and width: what is smaller is an item, even if it is a rectangle
)
FRAMED_EDGE_SHARE = 0.97
CUT_OFF_SHARE = 0.1  # of an edge
CLUTTERED_QUALITY, CLUTTERED_SHARE = 0.75, 0.06
SKIN_SHARES = 0.02, 0.5  # of the item: more is a garment of that colour


@dataclass(frozen=True)
class Item:
    """What was found in a photo of colours ``lab`` ``[height, width, 3]``.

    ``mask`` ``[height, width]`` is true on the item, and ``opacity`` is 0..1, so that its outline is smooth; ``ground``
    is the colour of most of the border. ``quality`` in 0..1 tells how clearly the colours part item and ground; at 0 no
    item was found, and all of the photo is taken for it. ``other_share`` is how much of the photo is neither item nor
    like the border.
    """

    lab: Colours
    mask: Mask
    opacity: Plane
    ground: Colours
    quality: float
    other_share: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the item in pixels of the mask, to fractions: where the opacity passes 0.5."""
        (left, right), (top, bottom) = (_extent(self.opacity.max(axis=axis)) for axis in (0, 1))
        return left, top, right, bottom

    @property
    def is_darker_than_ground(self) -> bool:
        """Whether the item's median lightness is below the ground's."""
        return bool(_median(self.lab[self.mask, 0]) < self.ground[0])

    @property
    def is_cut_off(self) -> bool:
        """Whether the item, if one was found, meets one of the photo's edges over some length."""
        edges = self.mask[0], self.mask[-1], self.mask[:, 0], self.mask[:, -1]
        return self.quality > 0 and any(edge.mean() > CUT_OFF_SHARE for edge in edges)

    @property
    def is_cluttered(self) -> bool:
        """Whether the colours do not part the item from the rest, or more than the item stands on the ground."""
        return 0 < self.quality < CLUTTERED_QUALITY or self.other_share > CLUTTERED_SHARE

    @property
    def warnings(self) -> tuple[Doubt, ...]:
        """What speaks against a right answer."""
        found: dict[Doubt, bool] = {
            "no item": self.quality == 0,
            "cut off": self.is_cut_off,
            "cluttered": self.is_cluttered,
            "worn": self.is_worn,
        }
        return tuple(doubt for doubt, is_given in found.items() if is_given)

    @property
    def is_worn(self) -> bool:
        """Whether part of what was found has the colour of skin, and it leaves the photo as people in photos do."""
        lightness, a, b = np.moveaxis(self.lab[self.mask], -1, 0)
        chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a))
        skin = (abs(lightness - 59) < 29) & (abs(chroma - 27) < 15) & (abs(hue - 54) < 24)
        return bool(SKIN_SHARES[0] < skin.mean() < SKIN_SHARES[1]) and bool(
            self.mask[[0, -1]].any()
        )


def find_item(lab: Colours) -> Item:
    """Find the one item in a photo of Lab colours ``[height, width, 3]``, inside of a frame if it has one."""
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
    """Return the rows and columns inside a frame or bars of one colour; all of them if there is none.

    What a frame surrounds is unlike it along all of its edges, which an item on its ground hardly is.
    """
    height, width = lab.shape[:2]
    unlike = _square_distances(lab, lab[:1, 0])[0] > LEAST_CONTRAST**2
    rows, columns = np.flatnonzero(unlike.any(axis=1)), np.flatnonzero(unlike.any(axis=0))
    if len(rows) < LEAST_FRAMED_SHARE * height or len(columns) < LEAST_FRAMED_SHARE * width:
        return slice(0, height), slice(0, width)
    # One pixel more, for where the two mix.
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
    """Part item and ground by their colours.

    At first the ground is what resembles the border, and the item what does not, by Otsu's threshold. Then both are
    described by histograms of their colours, each pixel goes to the likelier one, and so on, as in GrabCut (Rother et
    al. 2004), with a blur instead of its graph cut. The largest connected pieces are the item.
    """
    ground, distance = _compare_with_border(lab)
    threshold = max(_otsu(distance), LEAST_CONTRAST)
    contrast = np.clip(4 * (distance / threshold - 1), -3, 3)
    place = PLACE_WEIGHT * _place(distance.shape)
    belief, prior = contrast + place, CONTRAST_WEIGHT * contrast + place
    cells = _quantize(lab)
    all_pixels = np.bincount(cells.ravel(), minlength=np.prod(CELLS)).astype(np.float64)
    for _ in range(ROUNDS):
        belief = _blur(_compare_colours(cells, all_pixels, _sigmoid(belief))) + prior
    opacity = np.clip((1 + belief) / 2, 0, 1) * _grow(_open(belief > 0))
    if _is_like_paper(ground, distance):
        # As the data set's authors had it, all that differs is the item, however little: pale sleeves, thin straps.
        opacity = np.maximum(
            opacity, np.clip(distance / max(PAPER_SHARE * threshold, LEAST_CONTRAST) - 0.5, 0, 1)
        )
    mask = _keep_largest(opacity > 0.5, opacity)
    if distance.max() < LEAST_CONTRAST or not LEAST_AREA < mask.mean() < LARGEST_AREA:
        return Item(lab, np.ones_like(mask), np.ones_like(belief), ground, 0.0, 0.0)
    others = (distance > threshold) & ~mask
    return Item(
        lab,
        mask,
        opacity * _grow(mask),
        ground,
        float(abs(np.tanh(belief)).mean()),
        float(others.mean()),
    )


def _extent(profile: Plane) -> tuple[float, float]:
    """Return where a profile first rises above 0.5 and last falls below it, between the pixels' centres."""

    def start(values: Plane) -> float:
        first = int(np.argmax(values > 0.5))
        return (
            first + 0.5 - (values[first] - 0.5) / (values[first] - values[first - 1])
            if first
            else 0.0
        )

    return float(start(profile)), float(len(profile) - start(profile[::-1]))


def _compare_with_border(lab: Colours) -> tuple[Colours, Plane]:
    """Return the colour of most of the border, and each pixel's distance from it or from the nearest corner's."""
    depth = max(1, round(BORDER_SHARE * max(lab.shape)))
    edges = lab[:depth], lab[-depth:], lab[:, :depth], lab[:, -depth:]
    border = _median(np.concatenate([edge.reshape(-1, 3) for edge in edges]))
    # Two grounds, as a floor and a wall, are usual, and an item that is cut off leaves some corners free.
    top, bottom = lab[: 2 * depth], lab[-2 * depth :]
    corners = (
        top[:, : 2 * depth],
        top[:, -2 * depth :],
        bottom[:, : 2 * depth],
        bottom[:, -2 * depth :],
    )
    grounds = np.stack([border, *(_median(corner.reshape(-1, 3)) for corner in corners)])
    return border, np.sqrt(_square_distances(lab, grounds).min(axis=0))


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median of one value and more, along the first axis; NumPy's takes four times as long for so few."""
    ordered = np.sort(values, axis=0)
    return np.asarray((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _square_distances(lab: Colours, colours: Colours) -> Plane:
    """Return each pixel's square distance from each of ``colours`` ``[n, 3]``: ``[n, height, width]``."""
    pixels = lab.transpose(2, 0, 1).reshape(3, -1)
    # |p - c|^2 = |c|^2 - 2 c.p + |p|^2: a product of matrices is several times as fast as the differences
    squares = (
        (colours**2).sum(axis=1, keepdims=True)
        - 2 * colours @ pixels
        + np.einsum("cn,cn->n", pixels, pixels)
    )
    return np.asarray(np.maximum(squares, 0).reshape(len(colours), *lab.shape[:2]))


def _is_like_paper(ground: Colours, distance: Plane) -> bool:
    """Whether the ground is near-white and even."""
    border = np.concatenate([distance[0], distance[-1], distance[:, 0], distance[:, -1]])
    is_near_white = ground[0] > 85 and abs(ground[1:]).max() < 8
    return bool(is_near_white and (border < LEAST_CONTRAST / 2).mean() > 0.9)


def _otsu(values: Plane) -> float:
    """Return the threshold that best parts values of 0 and more into two groups (Otsu 1979)."""
    width = max(float(values.max()) / OTSU_BINS, 1e-6)
    counts = np.bincount((values / width).astype(np.intp).ravel(), minlength=OTSU_BINS + 1)
    below, sums = counts.cumsum(), (counts * np.arange(len(counts))).cumsum()
    between = (sums * below[-1] - sums[-1] * below) ** 2 / np.maximum(
        below * (below[-1] - below), 1
    )
    return float((1 + between[:-1].argmax()) * width)


@lru_cache(maxsize=64)
def _place(shape: tuple[int, ...]) -> Plane:
    """Return the log odds of being the item's by place alone: 0.8 to 0.2 in the middle, 0.02 to 0.98 at the border."""
    rows, columns = (abs(np.linspace(-1, 1, size, dtype=np.float32)) for size in shape)
    share = np.clip(0.8 * (1 - np.maximum(rows[:, None], columns) ** 4), 0.02, None)
    return np.asarray(np.log(share / (1 - share)))


def _quantize(lab: Colours) -> NDArray[np.intp]:
    """Number each pixel's cell of the histograms."""
    numbers = np.zeros(lab.shape[:2], np.intp)
    for axis, (low, high, cells) in enumerate(zip(LOW, HIGH, CELLS, strict=True)):
        cell = ((lab[..., axis] - low) * (cells / (high - low))).astype(np.int32)
        numbers = numbers * cells + cell.clip(0, cells - 1)
    return numbers


def _compare_colours(cells: NDArray[np.intp], all_pixels: Counts, shares: Plane) -> Plane:
    """Return the log ratio of how frequent each pixel's colour is in the item and in the ground."""
    in_item = np.bincount(cells.ravel(), shares.ravel(), len(all_pixels))
    pair = np.stack([in_item, all_pixels - in_item])
    item, ground = (
        _smooth((pair / pair.sum(axis=1, keepdims=True)).reshape(2, *CELLS)).reshape(2, -1) + 2e-4
    )
    ratio = np.log(item / ground).clip(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return np.asarray(ratio.astype(np.float32).take(cells))


def _smooth(histograms: Counts) -> Counts:
    """Share each cell out over its neighbours, one quarter to either side along each axis but the first."""
    along_l, along_a, along_b = (_sharing(cells) for cells in CELLS)
    shared = along_a @ histograms @ along_b.T
    return np.asarray(
        (along_l @ shared.reshape(len(shared), len(along_l), -1)).reshape(shared.shape)
    )


@lru_cache(maxsize=len(CELLS))
def _sharing(cells: int) -> NDArray[np.float64]:
    """Return the matrix by which cells in a row keep a half and give a quarter to each neighbour."""
    return (2 * np.eye(cells) + np.eye(cells, k=1) + np.eye(cells, k=-1)) / 4


def _sigmoid(values: Plane) -> Plane:
    return np.asarray(1 / (1 + np.exp(-values)))


def _blur(values: Plane) -> Plane:
    """Average over 3 x 3 pixels; beyond the border is what is at it."""
    height, width = values.shape
    padded = values[np.arange(-1, height + 1).clip(0, height - 1)][
        :, np.arange(-1, width + 1).clip(0, width - 1)
    ]
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9)


def _open(mask: Mask) -> Mask:
    """Remove what is thinner than three pixels."""
    return _grow(~_grow(~mask))


def _grow(mask: Mask) -> Mask:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _keep_largest(mask: Mask, weights: Plane) -> Mask:
    """Keep the connected piece of the greatest weight, and those that come near to it."""
    pieces = _label(mask)
    sums = np.bincount(pieces.ravel(), (weights * mask).ravel())
    return np.asarray(mask & (sums >= PIECE_SHARE * sums.max())[pieces])


def _label(mask: Mask) -> NDArray[np.intp]:
    """Number the connected pieces of a mask, from 1; the rest is 0.

    Runs of pixels in a row are joined with those that they touch in the row above (two-pass labelling, Rosenfeld and
    Pfaltz 1966).
    """
    height, width = mask.shape
    edged = np.zeros((height, width + 2), np.int8)
    edged[:, 1:-1] = mask
    steps = edged[:, 1:] - edged[:, :-1]
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    parents = _join(
        starts.tolist(), ends.tolist(), np.searchsorted(rows, np.arange(len(mask) + 1)).tolist()
    )
    numbers = np.zeros(steps.shape, np.intp)
    numbers[rows, starts] = np.array(parents, np.intp) + 1
    numbers[rows, ends] -= np.array(parents, np.intp) + 1
    return np.asarray(numbers.cumsum(axis=1)[:, :-1])


def _join(starts: list[int], ends: list[int], first_of_row: list[int]) -> list[int]:
    """Return for each run the first run of its piece."""
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
