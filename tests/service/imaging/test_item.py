"""The search for the item: one drawn picture for each rule, on both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.imaging.item import Colours, Item, find_item

SIZE = (72, 96)
WHITE, GREY, DARK, NAVY, SKIN = (97, 0, 0), (60, 0, 0), (20, 0, 0), (25, 5, -25), (59, 16, 22)


def paint(background: tuple[float, float, float]) -> Colours:
    """Return a picture of one Lab colour, float32 ``[height, width, 3]``."""
    return np.full((*SIZE, 3), background, np.float32)


def item(mask: NDArray[np.bool_], lab: Colours | None = None, **fields: float) -> Item:
    """Return an item of this mask, found clearly in a grey picture unless ``lab`` is given."""
    colours = np.full((*mask.shape, 3), GREY, np.float32) if lab is None else lab
    quality, other_share = fields.get("quality", 1.0), fields.get("other_share", 0.0)
    background = np.array(WHITE, np.float32)
    return Item(colours, mask, mask.astype(np.float32), background, quality, other_share)


def middle(size: int = 100) -> NDArray[np.bool_]:
    """Return a mask that touches no edge."""
    mask = np.zeros((size, size), np.bool_)
    mask[10:-10, 10:-10] = True
    return mask


def test_item_is_found_where_it_is() -> None:
    """A dark rectangle is the item, within a pixel; the rest is background, without a doubt."""
    lab = paint(GREY)
    lab[20:50, 30:70] = NAVY
    found = find_item(lab)
    assert found.box == pytest.approx((30, 20, 70, 50), abs=1)
    assert found.mask.sum() == pytest.approx(30 * 40, rel=0.15)
    assert found.warnings == ()
    np.testing.assert_allclose(found.background, GREY)
    assert found.is_darker_than_background


@pytest.mark.parametrize(("contrast", "is_found"), [(3.9, False), (4.1, True)])
def test_contrast_below_four_is_no_item(contrast: float, is_found: bool) -> None:
    """A rectangle that differs by less than 4 from its background is not found."""
    lab = paint(GREY)
    lab[20:50, 30:70, 0] -= contrast
    found = find_item(lab)
    assert ("no item" not in found.warnings) == is_found
    assert bool(found.mask.all()) != is_found
    if not is_found:
        assert found.warnings == ("no item",)
        assert (found.box, found.quality) == ((0, 0, 96, 72), 0)


@pytest.mark.parametrize(("columns", "is_kept"), [(9, False), (11, True)])
def test_piece_of_a_quarter_belongs_to_the_item(columns: int, is_kept: bool) -> None:
    """A second piece is part of the item from a quarter of the largest piece on."""
    lab = paint(GREY)
    lab[16:56, 10:50] = NAVY
    lab[16:56, 60 : 60 + columns] = NAVY
    found = find_item(lab)
    assert found.box[2] == pytest.approx(60 + columns if is_kept else 50, abs=1)
    # A piece that is left out is something else in the picture.
    assert found.other_share == pytest.approx(0 if is_kept else 40 * columns / (72 * 96), abs=0.002)


def test_small_part_that_is_joined_belongs_to_the_item() -> None:
    """A narrow part belongs to the item, however small it is, if it is joined somewhere."""
    lab = paint(GREY)
    lab[16:56, 10:50] = NAVY
    lab[16:56, 60:66] = NAVY
    assert find_item(lab).box[2] == pytest.approx(50, abs=1)
    lab[50:56, 50:60] = NAVY
    assert find_item(lab).box[2] == pytest.approx(66, abs=1)


@pytest.mark.parametrize("horizon", [40, 52])
def test_photo_may_have_two_backgrounds(horizon: int) -> None:
    """A wall and a floor are both background: the corners of the photo have their colours."""
    lab = paint(GREY)
    lab[horizon:] = (45, 10, 15)
    lab[18:56, 36:60] = NAVY
    assert find_item(lab).box == pytest.approx((36, 18, 60, 56), abs=1.5)


def pale_strap(
    background: tuple[float, float, float], contrast: float = 11, uneven_share: float = 0
) -> float:
    """Return the top of a shaded item with a thin pale strap above it. The strap begins at 8.

    ``uneven_share`` of each edge is three units darker. Otsu's threshold is 27.5, and the rule of
    the paper takes 0.35 of it: 9.6.
    """
    lab = paint(background)
    lab[30:60, 20:76, 0] -= np.linspace(10, 80, 56)
    lab[8:30, 46:48, 0] -= contrast
    for edge in (lab[0], lab[-1], lab[:, 0], lab[:, -1]):
        edge[: round(uneven_share * len(edge)), 0] = background[0] - 3
    return find_item(lab).box[1]


@pytest.mark.parametrize(("contrast", "is_kept"), [(9, False), (10.5, True)])
def test_pale_part_on_paper_is_item(contrast: float, is_kept: bool) -> None:
    """On white paper, a thin part is item from 0.35 of the usual threshold on."""
    assert pale_strap(WHITE, contrast) == pytest.approx(8 if is_kept else 29, abs=1)


@pytest.mark.parametrize(
    ("background", "is_paper"),
    [
        *[((86, 0, 0), True), ((84, 0, 0), False)],
        *[((97, 7, 0), True), ((97, 9, 0), False)],
        *[((97, -7, 0), True), ((97, -9, 0), False)],
        *[((97, 0, 7), True), ((97, 0, 9), False)],
        *[((97, 0, -7), True), ((97, 0, -9), False)],
    ],
)
def test_paper_is_near_white(background: tuple[float, float, float], is_paper: bool) -> None:
    """A background is paper if it is lighter than 85 and has less than 8 of any colour."""
    assert pale_strap(background) == pytest.approx(8 if is_paper else 29, abs=1)


@pytest.mark.parametrize(("uneven_share", "is_paper"), [(0.08, True), (0.12, False)])
def test_paper_is_even(uneven_share: float, is_paper: bool) -> None:
    """A background is paper if nine tenths of the border have the same colour."""
    assert pale_strap(WHITE, uneven_share=uneven_share) == pytest.approx(
        8 if is_paper else 29, abs=1
    )


def framed_picture(top: int, bottom: int, left: int, right: int) -> Colours:
    """Draw a brown rectangle on a light picture, in a dark frame of these widths."""
    lab = paint(DARK)
    lab[top : 72 - bottom, left : 96 - right] = (70, 0, 0)
    lab[28:46, 36:60] = (45, 40, 20)
    return lab


def assert_frame(lab: Colours, is_frame: bool) -> None:
    """Check whether the frame is left out of the search, or counts as the background."""
    found = find_item(lab)
    assert found.mask.shape == found.opacity.shape == SIZE
    assert found.background[0] == pytest.approx(70 if is_frame else DARK[0])
    if is_frame:
        assert found.box == pytest.approx((36, 28, 60, 46), abs=2)


@pytest.mark.parametrize("widths", [(6, 6, 6, 6), (6, 6, 0, 0), (0, 0, 6, 6), (6, 0, 0, 0)])
def test_frame_or_bars_are_left_out(widths: tuple[int, int, int, int]) -> None:
    """A frame, or bars along some edges, are not the background of the item."""
    assert_frame(framed_picture(*widths), is_frame=True)


@pytest.mark.parametrize(("hole", "is_frame"), [(1, True), (8, False)])
@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
def test_frame_differs_from_its_picture_along_every_edge(
    edge: str, hole: int, is_frame: bool
) -> None:
    """If the picture has the frame's colour along 3 % of any edge, there is no frame."""
    lab = framed_picture(6, 6, 6, 6)
    along = slice(20, 20 + hole)
    place = {
        "top": (slice(6, 9), along),
        "bottom": (slice(63, 66), along),
        "left": (along, slice(6, 9)),
        "right": (along, slice(87, 90)),
    }
    lab[place[edge]] = DARK
    assert_frame(lab, is_frame)


@pytest.mark.parametrize(
    ("widths", "is_frame"),
    [
        ((10, 10, 6, 6), True),
        ((11, 11, 6, 6), False),
        ((6, 6, 14, 14), True),
        ((6, 6, 15, 15), False),
    ],
)
def test_framed_picture_fills_most_of_the_photo(
    widths: tuple[int, int, int, int], is_frame: bool
) -> None:
    """A rectangle of less than 0.7 of the height or width is an item, and not a framed picture."""
    assert_frame(framed_picture(*widths), is_frame)


def test_outline_is_found_between_pixels() -> None:
    """The box ends where the opacity crosses a half, in fractions of a pixel."""
    profile = np.array([0, 0, 0.25, 0.75, 1, 1, 0.9, 0.4, 0], np.float32)
    opacity = np.minimum.outer(profile, profile[1:])
    mask = opacity > 0.5
    lab = np.zeros((*mask.shape, 3), np.float32)
    found = Item(lab, mask, opacity, np.zeros(3, np.float32), 1.0, 0.0)
    assert found.box == pytest.approx((2, 3, 6.3, 7.3))


@pytest.mark.parametrize(("lightness", "is_darker"), [(96, True), (98, False)])
def test_most_of_the_item_decides_which_is_darker(lightness: float, is_darker: bool) -> None:
    """The item is darker than the background if the median of its lightness is."""
    mask = middle()
    lab = np.zeros((100, 100, 3), np.float32)
    lab[..., 0] = lightness
    lab[:45, :, 0] = 50  # less than half of the item
    if is_darker:
        lab[:45, :, 0] = 100
    assert item(mask, lab).is_darker_than_background == is_darker


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize(("pixels", "is_cut_off"), [(10, False), (11, True)])
def test_item_along_a_tenth_of_an_edge_is_cut_off(edge: str, pixels: int, is_cut_off: bool) -> None:
    """An item is cut off if it touches more than a tenth of any edge."""
    mask = middle()
    touched = {"top": mask[0], "bottom": mask[-1], "left": mask[:, 0], "right": mask[:, -1]}
    touched[edge][20 : 20 + pixels] = True
    assert item(mask).is_cut_off == is_cut_off
    assert ("cut off" in item(mask).warnings) == is_cut_off
    assert not item(mask, quality=0.0).is_cut_off  # no item was found


@pytest.mark.parametrize(
    ("quality", "other_share", "is_cluttered"),
    [
        *[(0.76, 0.0, False), (0.74, 0.0, True), (0.0, 0.0, False)],
        *[(0.9, 0.05, False), (0.9, 0.07, True)],
    ],
)
def test_cluttered_picture_is_told(quality: float, other_share: float, is_cluttered: bool) -> None:
    """Colours that separate badly, or other things on 6 % of the photo, are a doubt."""
    found = item(middle(), quality=quality, other_share=other_share)
    assert found.is_cluttered == is_cluttered
    assert ("cluttered" in found.warnings) == is_cluttered


def worn(skin_percent: int, colour: tuple[float, float, float] = SKIN, row: int = 0) -> Item:
    """Return an item of 10 x 100 pixels in a ``row`` of a picture; a part has a colour of skin."""
    mask = np.zeros((100, 100), np.bool_)
    mask[range(row, row + 10)] = True
    lab = np.full((100, 100, 3), NAVY, np.float32)
    lab[:, :skin_percent] = colour
    return item(mask, lab)


@pytest.mark.parametrize(
    ("skin_percent", "is_worn"), [(0, False), (2, False), (3, True), (49, True), (50, False)]
)
def test_item_with_some_skin_is_worn(skin_percent: int, is_worn: bool) -> None:
    """An item is worn if 2 to 50 % of it have the colour of skin."""
    assert worn(skin_percent).is_worn == is_worn
    assert ("worn" in worn(skin_percent).warnings) == is_worn


@pytest.mark.parametrize(("row", "is_worn"), [(0, True), (90, True), (1, False), (89, False)])
def test_worn_item_touches_the_top_or_the_bottom(row: int, is_worn: bool) -> None:
    """An item with skin that touches neither the top nor the bottom of the photo is not worn."""
    assert worn(20, row=row).is_worn == is_worn


def of_chroma(chroma: float, hue: float, lightness: float = 59) -> tuple[float, float, float]:
    """Return a Lab colour of this chroma, and this hue in degrees."""
    angle = np.radians(hue)
    return lightness, float(chroma * np.cos(angle)), float(chroma * np.sin(angle))


@pytest.mark.parametrize(
    ("colour", "is_skin"),
    [
        *[(of_chroma(27, 54, 31), True), (of_chroma(27, 54, 29), False)],
        *[(of_chroma(27, 54, 87), True), (of_chroma(27, 54, 89), False)],
        *[(of_chroma(13, 54), True), (of_chroma(11, 54), False)],
        *[(of_chroma(41, 54), True), (of_chroma(43, 54), False)],
        *[(of_chroma(27, 31), True), (of_chroma(27, 29), False)],
        *[(of_chroma(27, 77), True), (of_chroma(27, 79), False)],
    ],
)
def test_colours_of_skin_have_limits(colour: tuple[float, float, float], is_skin: bool) -> None:
    """Skin has a lightness of 30 to 88, a chroma of 12 to 42 and a hue of 30 to 78 degrees."""
    assert worn(20, colour).is_worn == is_skin
