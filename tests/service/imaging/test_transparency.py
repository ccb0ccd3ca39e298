"""Transparent cut-outs, as shops have them: dark and white garments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from service.bundle import read_bundle
from service.imaging import InputSpec, read_image, read_picture
from service.imaging.transparency import DARK_GREY, choose_background
from service.inference.classifier import Classifier
from tests.service.images import encode

GREY, PHOTO = InputSpec("item-on-black", (28, 28)), InputSpec("letterbox", (96, 128))
MAX_PIXELS = 1_000_000
PAPER = "#ffffff"
ROOT = Path(__file__).parents[3]
FILES = sorted((Path(__file__).parents[2] / "data" / "fashion-mnist-sample").glob("*.png"))
ITEMS = [np.asarray(Image.open(path)) for path in FILES]
LABELS = np.array([int(path.stem.split("_")[1]) for path in FILES])


def cut_out(item: np.ndarray, lightest: int, contrast: int) -> Image.Image:
    """Draw an item of the data set as a transparent picture five times as large.

    Its levels are between ``lightest - contrast`` and ``lightest``.
    """
    levels = (lightest - contrast * (item / 255)).astype(np.uint8)
    sides = 5 * item.shape[1], 5 * item.shape[0]
    colours = Image.fromarray(levels).resize(sides, Image.Resampling.BICUBIC).convert("RGB")
    opacity = Image.fromarray((item > 8).astype(np.uint8) * 255)
    colours.putalpha(opacity.resize(sides, Image.Resampling.BICUBIC))
    picture = Image.new("RGBA", (sides[0] + 100, sides[1] + 60))
    picture.paste(colours, (50, 30))
    return picture


def on_background(picture: Image.Image, colour: str) -> Image.Image:
    """Lay a transparent picture on a background of one colour."""
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture).convert("RGB")


@pytest.mark.parametrize("spec", [GREY, PHOTO])
def test_dark_cut_out_is_seen_as_on_paper(spec: InputSpec) -> None:
    """A dark cut-out gives the input, bit for bit, of the same item on white paper."""
    for item in ITEMS[:10]:
        picture = cut_out(item, lightest=140, contrast=100)
        seen, on_paper = (
            read_image(encode(image), spec, MAX_PIXELS).image
            for image in (picture, on_background(picture, PAPER))
        )
        np.testing.assert_array_equal(seen, on_paper)


def test_white_cut_out_stands_out_from_its_background() -> None:
    """A photo model sees a white cut-out on dark grey: at least 100 levels apart."""
    for item in ITEMS[:10]:
        seen = read_image(encode(cut_out(item, 255, 25)), PHOTO, MAX_PIXELS).image
        background = seen[2, 64].astype(int)
        assert background.tolist() == [0x40] * 3
        assert (seen.max(axis=(0, 1)) - background).min() > 100


def test_grey_model_sees_the_outline_of_a_white_cut_out() -> None:
    """A grey model sees a white cut-out bright on black, and its outline is that of the alpha.

    Outlines agree by more than three quarters (intersection over union) for nine of ten items.
    """
    agreements = []
    for item in ITEMS:
        white, dark = (
            read_image(encode(cut_out(item, *levels)), GREY, MAX_PIXELS)
            for levels in ((255, 25), (90, 60))
        )
        assert white.placed is not None
        assert not white.placed.negated
        outlines = white.image > 100, dark.image > 100
        agreements.append((outlines[0] & outlines[1]).sum() / (outlines[0] | outlines[1]).sum())
    assert np.mean(np.array(agreements) > 0.75) >= 0.9


@pytest.mark.parametrize(("levels", "least"), [((255, 10), 0.65), ((90, 60), 0.85)])
def test_white_cut_outs_are_recognised_too(levels: tuple[int, int], least: float) -> None:
    """The grey model names 21 of 30 white cut-outs and 27 dark ones rightly.

    If the transparent parts are white, it names two of the white ones.
    """
    classifier = Classifier(read_bundle(ROOT / "models" / "resnet-8" / "3"), "cpu")
    seen = [read_image(encode(cut_out(item, *levels)), GREY, MAX_PIXELS).image for item in ITEMS]
    answers = np.array([answer.class_id for answer in classifier.classify(seen)])
    assert (answers == LABELS).mean() >= least


pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(4)))


@given(pixels=pixels, colour=st.tuples(*[st.integers(0, 255)] * 3))
@settings(max_examples=100, deadline=None)
def test_invisible_colours_do_not_matter(pixels: np.ndarray, colour: tuple[int, int, int]) -> None:
    """The colours of pixels without opacity change neither the background nor the picture."""
    pixels[::2, :, 3] = 0
    changed = pixels.copy()
    changed[::2, :, :3] = colour
    one, other = (
        np.asarray(read_picture(encode(Image.fromarray(each)), MAX_PIXELS).image)
        for each in (pixels, changed)
    )
    np.testing.assert_array_equal(one, other)


@given(pixels=pixels)
@settings(max_examples=100, deadline=None)
def test_opaque_pixels_keep_their_colours(pixels: np.ndarray) -> None:
    """Opaque pixels come out as they are, on whichever background."""
    opaque = pixels[..., 3] > 127
    pixels[..., 3] = np.where(opaque, 255, 0)
    picture = np.asarray(read_picture(encode(Image.fromarray(pixels)), MAX_PIXELS).image)
    np.testing.assert_array_equal(picture[opaque], pixels[opaque][:, :3])
    assert {tuple(colour) for colour in picture[~opaque].tolist()} <= {(255,) * 3, (0x40,) * 3}


@pytest.mark.parametrize(
    ("level", "opacity", "background"),
    [
        (255, 255, DARK_GREY),
        (255, 20, DARK_GREY),
        (215, 255, DARK_GREY),
        (205, 255, "white"),
        (0, 255, "white"),
        (255, 0, "white"),
    ],
)
def test_background_depends_on_the_visible_level(level: int, opacity: int, background: str) -> None:
    """Light pictures get dark grey, dark and invisible ones white, whatever their opacity."""
    picture = Image.new("RGBA", (50, 40), (level, level, level, opacity))
    picture.paste((0, 0, 0, 0), (0, 0, 25, 40))
    assert choose_background(picture) == background
