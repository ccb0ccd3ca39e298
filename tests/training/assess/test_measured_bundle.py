"""A measured bundle sees exactly what the service sees, or a squashed picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.imaging import InputSpec, read_image
from tests.service.bundles import (
    PHOTO_SIZE,
    linear_answer,
    photo_model,
    write_linear_bundle,
    write_photo_bundle,
)
from tests.training.data.photos.folders import write_photo
from training.assess.measured_bundle import MeasuredBundle
from training.assess.photo_kinds import Picture
from training.errors import DataError


@pytest.fixture
def red(tmp_path: Path) -> Picture:
    """A red picture, 60 x 40 pixels."""
    write_photo(tmp_path, "red.jpg")
    return Picture("red.jpg", (tmp_path / "red.jpg").read_bytes(), (0,))


def test_photo_bundle_sees_what_the_service_sees(tmp_path: Path, red: Picture) -> None:
    """The input is that of read_image; squashed, it has no bars."""
    measured = MeasuredBundle(write_photo_bundle(tmp_path / "bundle"))
    seen = measured.prepare(red)
    np.testing.assert_array_equal(
        seen, read_image(red.data, InputSpec("letterbox", PHOTO_SIZE), 10**6).image
    )
    squashed = measured.squash(red)
    assert squashed.shape == seen.shape == (*PHOTO_SIZE, 3)
    assert seen[0, 0].tolist() == [127, 127, 127]
    assert squashed[0, 0].tolist() != [127, 127, 127]


def test_grey_bundle_sees_grey(tmp_path: Path, red: Picture) -> None:
    """The input of a grey bundle is grey in both ways, and the graph answers it."""
    measured = MeasuredBundle(write_linear_bundle(tmp_path / "bundle"))
    squashed = measured.squash(red)
    assert squashed.shape == measured.prepare(red).shape == (20, 30)
    answers = measured.answer([squashed])
    assert answers.class_ids[0] == linear_answer(squashed, 3).argmax()
    assert answers.accepted is None
    assert answers.activations is None


def test_answers_of_many_batches_keep_their_order(tmp_path: Path) -> None:
    """More pictures than fit into a batch are answered in their order."""
    measured = MeasuredBundle(write_photo_bundle(tmp_path / "bundle"))
    class_ids = np.random.default_rng(1).integers(0, 3, 130)
    images = np.zeros((130, *PHOTO_SIZE, 3), np.uint8)
    images[np.arange(130), :, :, class_ids] = 200
    answers = measured.answer(list(images))
    np.testing.assert_array_equal(answers.class_ids, class_ids)
    assert answers.activations is not None
    assert answers.activations.shape == (130, 3, 3, 4)


def test_threshold_decides_what_is_accepted(tmp_path: Path) -> None:
    """A distance of at most the threshold is accepted; without a threshold nothing is known."""
    images = [np.full((*PHOTO_SIZE, 3), level, np.uint8) for level in (0, 100, 250)]
    measured = MeasuredBundle(write_photo_bundle(tmp_path / "one", distance_threshold=0.8))
    accepted = measured.answer(images).accepted
    assert accepted is not None
    assert accepted.tolist() == [True, True, False]
    without = MeasuredBundle(write_photo_bundle(tmp_path / "two", distance_threshold=None))
    assert without.answer(images).accepted is None


def test_bundle_without_activations_answers(tmp_path: Path) -> None:
    """Activations are optional."""
    model = photo_model(*PHOTO_SIZE, with_activations=False)
    measured = MeasuredBundle(write_photo_bundle(tmp_path / "bundle", model=model))
    assert measured.answer([np.zeros((*PHOTO_SIZE, 3), np.uint8)]).activations is None


def test_damaged_picture_is_named(tmp_path: Path) -> None:
    """A file that is not an image gives an error with its name."""
    measured = MeasuredBundle(write_photo_bundle(tmp_path / "bundle"))
    with pytest.raises(DataError, match=r"photos/a\.jpg cannot be read: the upload"):
        measured.prepare(Picture("photos/a.jpg", b"not an image", (0,)))


def test_transparent_picture_is_squashed(tmp_path: Path) -> None:
    """Pictures with alpha are squashed too."""
    path = tmp_path / "clear.png"
    Image.new("RGBA", (50, 20), (255, 0, 0, 100)).save(path)
    measured = MeasuredBundle(write_photo_bundle(tmp_path / "bundle"))
    assert measured.squash(Picture("clear.png", path.read_bytes(), ())).shape == (*PHOTO_SIZE, 3)
