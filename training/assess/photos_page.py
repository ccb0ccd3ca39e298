"""The page ``docs/photos.md``: the figures on photos of every bundle measured so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from service.bundle import Bundle
from training.assess.photos import (
    HELD_OUT_HALF,
    MADE,
    NO_CLASS,
    Row,
    draw_made_photos,
    measure_photos,
)
from training.data.photos.table import Part
from training.data.samples import Samples, Source

MADE_PHOTOS = 500
LEARNED_FROM = {
    "none": "trained on Fashion-MNIST alone",
    "half": "trained on Fashion-MNIST, on the development half of the labelled photos of its "
    "classes, and on photos made from training images",
    "all": "trained on Fashion-MNIST, on all labelled photos of its classes, and on photos made "
    "from training images",
}


def write_photos(bundle: Bundle, folder: Path, source: Source, sheet: Path, output: Path) -> str:
    """Measure a bundle, write its figures beside ``output``, and write the page to ``output``.

    Returns:
        The page, which shows all bundles measured so far.

    Raises:
        DataError: The table of photos cannot be read.
    """
    recipe = bundle.manifest.training["recipe"]
    _, validation = source.training().split(recipe["validation_fraction"], recipe["split_seed"])
    part = Samples(validation.images[:MADE_PHOTOS], validation.labels[:MADE_PHOTOS])
    beside = output.with_suffix("")
    beside.mkdir(parents=True, exist_ok=True)
    figures = measure_photos(bundle, folder, part, sheet)
    name = f"{bundle.manifest.name}-{bundle.manifest.version}"
    (beside / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw_made_photos(beside / f"{name}.png", part, bundle)
    page = render_photos(beside)
    output.write_text(page, encoding="utf-8")
    return page


def render_photos(folder: Path) -> str:
    """Render the page from the JSON files in ``folder``, which is beside the page."""
    files = sorted(folder.glob("*.json"))
    figures = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    pictures = "\n".join(f"![{path.stem}]({folder.name}/{path.stem}.png)" for path in files)
    models = "\n".join(
        f"- `{_name(found)}`: augmentation `{found['augmentation']}`, "
        f"{LEARNED_FROM[found['photos_from']]}."
        for found in figures
    )
    return f"""# Photos

Written by `python -m training photos`; do not edit. The figures are in `docs/photos/`.

This page measures models on {figures[0]["photos"]:,} labelled photos, most of clothing, and on
photos made from Fashion-MNIST's validation images. The models see the photos as in the service: the
item is found, cut out and put on black (rule `item-on-black`,
`docs/decisions/0004-find-the-item.md`). For comparison, "squashed" is the same model on the same
photo converted to grey and resized to the model's input, as a naive client does it. Brackets hold
the 95 % Wilson interval. A figure with a star is not a test: the model learned from some or all of
these photos.

{models}

{_table(figures)}

The groups are top (T-shirt/top, Pullover, Coat, Shirt), trouser, dress, shoe (Sandal, Sneaker,
Ankle boot) and bag. The rules for finding the item were chosen on the development half of the
photos and checked on the held-out half. Where nobody labelled the kind of a shoe, each shoe class
counts as correct. An answer outside the distance threshold counts as a warning. All shoes from the
shop are sneakers. "Still correct" counts only images that the model classifies correctly in the
data set.

## What the model sees

Photos made from Fashion-MNIST, the model's input for each photo, and its answer:

{pictures}

`python -m training photos FOLDER --sheet FILE` draws the same for a folder of photos.
"""


def _name(figures: dict[str, Any]) -> str:
    return f"{figures['name']}/{figures['version']}"


def _table(figures: Sequence[dict[str, Any]]) -> str:
    heads = " | ".join(f"`{_name(found)}` squashed | `{_name(found)}`" for found in figures)
    parts = [found["photos_from"] for found in figures]
    columns = [[Row(**row) for row in found["rows"]] for found in figures]
    lines = [_line(rows, parts) for rows in zip(*columns, strict=True)]
    rule = "|---|---|---|---|" + "---|---|" * len(figures)
    return "\n".join([f"| photos | measure | goal | of | {heads} |", rule, *lines])


def _line(rows: Sequence[Row], learned_from: Sequence[Part]) -> str:
    first = rows[0]
    direction = "at most" if first.is_limit else "at least"
    goal = "" if first.goal is None else f"{direction} {first.goal:.0%}"
    counts = " / ".join(dict.fromkeys(str(row.count) for row in rows))
    cells = " | ".join(
        f"{_share(row.naive_hits, row.count)} | {_share(row.hits, row.count)}{_star(row, part)}"
        for row, part in zip(rows, learned_from, strict=True)
    )
    return f"| {first.photos} | {first.measure} | {goal} | {counts} | {cells} |"


def _star(row: Row, learned_from: Part) -> str:
    """Mark figures on photos that the model learned from."""
    never_learned = row.photos.startswith((MADE, NO_CLASS))
    held_out = learned_from == "half" and row.photos.startswith(HELD_OUT_HALF)
    return "" if learned_from == "none" or never_learned or held_out else " *"


def _share(hits: int | None, count: int) -> str:
    if hits is None or not count:
        return ""
    low, high = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return f"{hits / count:.1%} ({low:.1%} to {high:.1%})"
