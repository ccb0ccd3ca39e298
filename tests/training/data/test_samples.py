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
    """The parts hold every image once, and each class in the proportion of the whole to within one image."""
    whole = sample()
    rest, cut = whole.split(fraction, seed)
    pixels = np.concatenate([rest.images, cut.images]).reshape(len(whole), -1)
    assert sorted(pixels.tolist()) == sorted(whole.images.reshape(len(whole), -1).tolist())
    assert (abs(np.bincount(cut.labels, minlength=10) - len(cut) / 10) < 1).all()


def test_split_depends_on_the_seed_alone() -> None:
    """The same seed gives the same parts, another seed others."""
    first, second, other = (sample().split(0.2, seed)[1].sha256() for seed in (13, 13, 14))
    assert first == second != other


def test_split_of_too_few_is_refused() -> None:
    """A part with fewer images than classes cannot be stratified and says so."""
    with pytest.raises(DataError, match=r"cannot cut 1\.0% of 300 samples"):
        sample().split(0.01, 13)


def test_hash_changes_with_any_value() -> None:
    """Every pixel and every label counts for the hash, and the order does."""
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


def test_wrong_shapes_are_refused() -> None:
    """Images without a third axis, of another type or with too few labels are refused with both shapes."""
    images, labels = sample().images, sample().labels
    for wrong in ((images[..., None], labels), (images / 255, labels), (images, labels[1:])):
        with pytest.raises(DataError, match=r"expected images uint8 \[N, H, W\] with N labels"):
            Samples(*wrong)
