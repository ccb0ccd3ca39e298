"""The page ``docs/photos.md``: how every bundle measured so far performs on photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from service.bundle import Bundle
from training.assess.photos import (
    HELD_OUT_HALF,
    HOME,
    MADE,
    NO_CLASS,
    SHOP,
    WORN,
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
    """Measure a bundle, write its figures into a folder beside ``output``, and write the page.

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
    """Render the page from the JSON files in ``folder``. The page must lie beside this folder."""
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

This page shows how well models classify {figures[0]["photos"]:,} labelled photos, most of them \
of clothing, and photos
made from Fashion-MNIST's validation images. The photos are prepared as in the service: the item is
found, cut out and put on black (rule `item-on-black`, `docs/decisions/0004-find-the-item.md`). For
comparison, a "squashed" column shows the same model on photos that are only converted to grey and
resized, as by a client that skips this preparation.

{models}

{_table(figures)}

How to read the table:

- Brackets hold the 95 % Wilson interval.
- A star marks a figure that is not a test: the model learned from some or all of these photos.
- "home" photos come from the source `{HOME}`, and "shop" photos come from the source
  `{SHOP}`. Photos "worn by a person" have the tier {WORN} in `labels.csv`.
- The rules for finding the item were chosen on the development half of the photos and checked on
  the held-out half.
- "top-1" and "correct class" count answers that are a possible class of the photo. If nobody
  labelled the kind of a shoe, each shoe class is possible. All shoes from the shop are sneakers.
- A "correct group" contains a possible class of the photo. The groups are top (T-shirt/top,
  Pullover, Coat, Shirt), trouser, dress, shoe (Sandal, Sneaker, Ankle boot) and bag.
- An answer is "accepted without a warning" if the service finds the item without a warning and the
  distance is within the model's threshold.
- "still correct" counts only images that the model classifies correctly in the data set. The number
  of these images differs between models, so "count" lists each different number.
- "wrong polarity" counts photos on white that the preparation did not negate.

## What does the model see?

Each picture shows photos made from Fashion-MNIST, with the model's input and answer for each:

{pictures}

`python -m training photos FOLDER --sheet FILE` draws such a picture for a folder of photos.
"""


def _name(figures: dict[str, Any]) -> str:
    return f"{figures['name']}/{figures['version']}"


def _table(figures: Sequence[dict[str, Any]]) -> str:
    heads = " | ".join(f"`{_name(found)}` squashed | `{_name(found)}`" for found in figures)
    parts = [found["photos_from"] for found in figures]
    columns = [[Row(**row) for row in found["rows"]] for found in figures]
    lines = [_line(rows, parts) for rows in zip(*columns, strict=True)]
    rule = "|---|---|---|---|" + "---|---|" * len(figures)
    return "\n".join([f"| photos | measure | goal | count | {heads} |", rule, *lines])


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
    """Return a star if the model learned from some or all photos of this row."""
    never_learned = row.photos.startswith((MADE, NO_CLASS))
    held_out = learned_from == "half" and row.photos.startswith(HELD_OUT_HALF)
    return "" if learned_from == "none" or never_learned or held_out else " *"


def _share(hits: int | None, count: int) -> str:
    if hits is None or not count:
        return ""
    low, high = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return f"{hits / count:.1%} ({low:.1%} to {high:.1%})"
