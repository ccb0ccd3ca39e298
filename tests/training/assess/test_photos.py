"""The figures of a bundle on a kind of pictures."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.service.bundles import write_photo_bundle
from training.assess.measured_bundle import MeasuredBundle
from training.assess.photo_kinds import HOME, HOME_THINGS, Picture
from training.assess.photos import Hits, Row, measure_kind


@pytest.fixture
def measured(tmp_path: Path) -> MeasuredBundle:
    """A bundle that answers red (top), green (trouser) or blue (top), and does not accept white."""
    return MeasuredBundle(write_photo_bundle(tmp_path / "bundle"))


def picture(colour: str, *classes: int) -> Picture:
    """Make a picture of one colour."""
    buffer = BytesIO()
    Image.new("RGB", (60, 40), colour).save(buffer, "PNG")
    return Picture(colour, buffer.getvalue(), classes)


def test_hits_are_counted(measured: MeasuredBundle) -> None:
    """Class, group and acceptance are counted. A class counts only if it is the only one."""
    pictures = [
        picture("red", 0),
        picture("#00ff00", 0),  # wrong class, wrong group
        picture("blue", 0),  # wrong class, right group
        picture("red", 0, 2),  # the class is not known
        picture("#ffeeee", 0),  # not accepted
    ]
    row = measure_kind(measured, HOME, pictures)
    assert (row.kind, row.count, row.class_count) == (HOME.name, 5, 4)
    assert row.seen == Hits(correct_class=2, correct_group=4, accepted=4)
    assert row.squashed == row.seen


def test_things_of_no_class_are_accepted_or_not(measured: MeasuredBundle) -> None:
    """Pictures of no class have neither a correct class nor a correct group."""
    row = measure_kind(measured, HOME_THINGS, [picture("black"), picture("white")])
    assert row == Row(HOME_THINGS.name, 2, 0, Hits(None, None, 1), Hits(None, None, 1))


def test_bundle_without_threshold_has_no_acceptance(tmp_path: Path) -> None:
    """A bundle that does not tell known from unknown has no figure for it."""
    bundle = write_photo_bundle(tmp_path / "bundle", distance_threshold=None)
    row = measure_kind(MeasuredBundle(bundle), HOME, [picture("red", 0)])
    assert row.seen == Hits(1, 1, None)
