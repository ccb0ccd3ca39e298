"""The batches: every image is used equally often, and teachers see the augmented images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.fashion_mnist import SampleSource
from tests.training.making import make_config
from training.data.samples import Samples
from training.fit.answers import predict
from training.fit.batches import Batches
from training.fit.runs import load_model

SOURCE = SampleSource()


def test_stream_of_steps_uses_every_image_equally_often() -> None:
    """With steps_per_epoch, batches use each image once before any image is used again."""
    samples = Samples(np.arange(10, dtype=np.uint8)[:, None, None], np.zeros(10, np.int64))
    batches = Batches(samples, make_config(SOURCE, name="run", batch_size=4, steps_per_epoch=5))
    seen = []
    for batches.epoch in (0, 1):
        seen += [int(pixel) for index in range(5) for pixel in batches[index][0].ravel()]
    assert [sorted(seen[start : start + 10]) for start in (0, 10, 20, 30)] == [list(range(10))] * 4
    assert seen[:10] != seen[10:20]


def test_teachers_see_the_augmented_images(small_run: Path) -> None:
    """The targets of a batch are the teacher's answers to the batch's augmented images."""
    config = make_config(
        SOURCE,
        name="student",
        teachers=[small_run],
        distillation_temperature=1.0,
        augmentation="modern-cutmix",
    )
    images, targets = Batches(SOURCE.training(), config)[0]
    pixels = images[..., 0].round().astype(np.uint8)
    np.testing.assert_allclose(targets, predict(load_model(small_run), pixels), atol=1e-5)
