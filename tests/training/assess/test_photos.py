"""The figures of a bundle on photos, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path

from service.bundle import read_bundle
from tests.training.fashion_mnist import ROOT, SampleSource, sample
from training.assess.photos_page import render_photos, write_photos
from training.data.photos.synthetic import make_photos

HEAD = "file,class_id,tier,source\n"


def test_page_shows_the_figures(tmp_path: Path) -> None:
    """A model classifies most photos made from the sample correctly, but few squashed photos."""
    chosen = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12]
    photos = make_photos(sample().images[chosen], "white", seed=3)
    lines = []
    for number, photo in zip(chosen, photos, strict=True):
        (tmp_path / f"{number}.jpg").write_bytes(photo)
        lines.append(f"{number}.jpg,{sample().labels[number]},C,clothing-dataset\n")
    (tmp_path / "none.jpg").write_bytes(photos[0])
    (tmp_path / "labels.csv").write_text(HEAD + "".join(lines) + "none.jpg,,C,clothing-dataset\n")
    bundle = read_bundle(ROOT / "models" / "convnet-tf1" / "1")
    output = tmp_path / "docs" / "photos.md"
    output.parent.mkdir()
    page = write_photos(bundle, tmp_path, SampleSource(), tmp_path / "sheet.png", output)
    figures = json.loads((tmp_path / "docs" / "photos" / "convnet-tf1-1.json").read_text())
    rows = {(row["photos"], row["measure"]): row for row in figures["rows"]}
    everything = rows["all", "correct class"]
    assert everything["count"] == 10
    assert everything["hits"] >= 8 > 5 >= everything["naive_hits"]
    assert rows["objects of no class", "accepted without a warning"]["count"] == 1
    assert rows["made from Fashion-MNIST, background white", "wrong polarity"]["hits"] == 0
    assert output.read_text() == page
    assert f"| {everything['hits'] / 10:.1%} (" in page
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_page_in_docs_is_current() -> None:
    """docs/photos.md is rendered from the figures in docs/photos/."""
    assert (ROOT / "docs" / "photos.md").read_text() == render_photos(ROOT / "docs" / "photos")
