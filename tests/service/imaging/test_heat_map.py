"""The heat map over the picture that a photo model saw."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from service.imaging.heat_map import draw_heat_map

PICTURE = np.full((40, 60, 3), 128, np.uint8)


def test_highest_value_is_yellow_at_its_place() -> None:
    """The place of the map's highest value is yellow, the farthest corner is dark blue."""
    activation = np.zeros((4, 6), np.float32)
    activation[1, 4] = 3
    drawn = np.asarray(draw_heat_map(PICTURE, activation)).astype(int)
    assert drawn.shape == PICTURE.shape
    red_and_green = drawn[..., :2].sum(axis=2)
    row, column = np.unravel_index(red_and_green.argmax(), red_and_green.shape)
    assert 10 <= row < 20
    assert 40 <= column < 50
    red, green, blue = drawn[-1, 0]
    assert blue > red > green


def test_picture_stays_visible() -> None:
    """A line in the picture is seen through the colours."""
    picture = PICTURE.copy()
    picture[20] = 255
    drawn = np.asarray(draw_heat_map(picture, np.eye(3, dtype=np.float32))).astype(int)
    assert (drawn[20] - drawn[18]).min() > 30


@given(
    activation=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-1000, 1000, width=32),
    )
)
@settings(max_examples=100, deadline=None)
def test_any_map_is_drawn(activation: np.ndarray) -> None:
    """Any finite map can be drawn; a map of one value is dark blue everywhere."""
    drawn = draw_heat_map(PICTURE, activation)
    assert drawn.size == (60, 40)
    if (activation == activation[0, 0]).all():
        assert isinstance(drawn, Image.Image)
        assert len(drawn.getcolors() or []) == 1
