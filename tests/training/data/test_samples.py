"""Samples: their shape, their hash and their split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.fashion_mnist import sample
from training.data.samples import Samples
from training.errors import DataError


@given(fraction=st.floats(0.1, 0.9), seed=st.integers(0, 2**32 - 1))
def test_split_is_stratified_and_loses_nothing(fraction: float, seed: int) -> None:
    """Both parts together hold each image once, and both parts keep the shares of the classes."""
    whole = sample()
    rest, cut = whole.split(fraction, seed)
    pixels = np.concatenate([rest.images, cut.images]).reshape(len(whole), -1)
    assert sorted(pixels.tolist()) == sorted(whole.images.reshape(len(whole), -1).tolist())
    assert (abs(np.bincount(cut.labels, minlength=10) - len(cut) / 10) < 1).all()


def test_split_depends_on_the_seed_alone() -> None:
    """Equal seeds give equal parts, and different seeds give different parts."""
    first, second, other = (sample().split(0.2, seed)[1].sha256() for seed in (13, 13, 14))
    assert first == second != other


def test_split_of_too_few_samples_is_rejected() -> None:
    """A part with fewer images than classes cannot be stratified, and the error says so."""
    with pytest.raises(DataError, match=r"cannot split 1\.0% off 300 samples.*add images"):
        sample().split(0.01, 13)


def test_class_that_would_be_in_one_part_only_is_named() -> None:
    """Of a rare class, a stratified part may hold no image; calibration needs one."""
    few = Samples(np.zeros((804, 8, 8), np.uint8), np.array([0] * 799 + [1] * 5))
    with pytest.raises(DataError, match="class 1 has too few images to be in both parts"):
        few.split(1 / 12, 13)


def test_hash_changes_with_any_value() -> None:
    """The hash depends on each pixel, each label and their order."""
    images, labels = sample().images, sample().labels
    brighter, relabelled = images.copy(), labels.copy()
    brighter[299, 27, 27] ^= 1
    relabelled[299] ^= 1
    variants = [
        (images, labels),
        (brighter, labels),
        (images, relabelled),
        (images[::-1], labels[::-1]),
    ]
    assert len({Samples(*variant).sha256() for variant in variants}) == 4


def test_wrong_shapes_are_rejected() -> None:
    """Wrong dimensions, a wrong type and missing labels are rejected with an error."""
    images, labels = sample().images, sample().labels
    for wrong in ((images[..., None], labels), (images / 255, labels), (images, labels[1:])):
        with pytest.raises(DataError, match=r"expected images uint8 \[N, H, W\] with labels \[N\]"):
            Samples(*wrong)
