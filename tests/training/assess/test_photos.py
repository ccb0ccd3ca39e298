"""What is measured of a bundle on photos, and photos made of images of the data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.bundle import read_bundle
from service.imaging import read_image
from tests.training.fashion_mnist import ROOT, SampleSource, sample
from training.assess.photos_page import render_photos, write_photos
from training.data.photos.synthetic import GROUNDS, Ground, make_uploads
from training.data.photos.table import read_photos
from training.errors import DataError

HEAD = "file,class_id,tier,source\n"


@pytest.mark.parametrize("ground", GROUNDS)
def test_uploads_hold_the_item_they_were_made_of(ground: Ground) -> None:
    """An upload is a JPEG, the same for the same seed, and most show the item that they were made of."""
    images = sample().images[:30]
    uploads = make_uploads(images, ground, seed=1)
    assert uploads == make_uploads(images, ground, seed=1)
    assert all(upload.startswith(b"\xff\xd8") for upload in uploads)
    seen = np.stack([read_image(upload, (28, 28), 10**7).image for upload in uploads]).astype(int)
    apart = abs(seen[:, None] - images[None]).mean(axis=(2, 3))
    assert (apart.argmin(axis=1) == np.arange(30)).mean() > 0.8


def test_page_tells_what_was_measured(tmp_path: Path) -> None:
    """Of photos that are uploads of the sample, the model gets most, and squashed few; page and sheet are written."""
    chosen = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12]
    uploads = make_uploads(sample().images[chosen], "white", seed=3)
    lines = []
    for number, upload in zip(chosen, uploads, strict=True):
        (tmp_path / f"{number}.jpg").write_bytes(upload)
        lines.append(f"{number}.jpg,{sample().labels[number]},C,clothing-dataset\n")
    (tmp_path / "none.jpg").write_bytes(uploads[0])
    (tmp_path / "labels.csv").write_text(HEAD + "".join(lines) + "none.jpg,,C,clothing-dataset\n")
    bundle = read_bundle(ROOT / "models" / "convnet-tf1" / "1")
    output = tmp_path / "docs" / "photos.md"
    output.parent.mkdir()
    page = write_photos(bundle, tmp_path, SampleSource(), tmp_path / "sheet.png", output)
    figures = json.loads((tmp_path / "docs" / "photos" / "convnet-tf1-1.json").read_text())
    rows = {(row["photos"], row["measure"]): row for row in figures["rows"]}
    everything = rows["all", "right"]
    assert everything["count"] == 10
    assert everything["hits"] >= 8 > 5 >= everything["naive_hits"]
    assert rows["things of no class", "accepted without a warning"]["count"] == 1
    assert rows["made of Fashion-MNIST, on white", "wrong polarity"]["hits"] == 0
    assert output.read_text() == page
    assert f"| {everything['hits'] / 10:.1%} (" in page
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_labels_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A folder without labels.csv, and one whose labels lack a column, are refused by name."""
    with pytest.raises(DataError, match=r"labels\.csv cannot be read"):
        read_photos(tmp_path)
    (tmp_path / "labels.csv").write_text("file,tier,source\na.jpg,C,me\n")
    with pytest.raises(DataError, match="not a table of photos"):
        read_photos(tmp_path)


def test_published_page_is_rendered_from_its_figures() -> None:
    """docs/photos.md holds what the figures beside it say."""
    assert (ROOT / "docs" / "photos.md").read_text() == render_photos(ROOT / "docs" / "photos")
