"""``docs/photos.md``: the figures on photos of every bundle measured so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import binomtest

from service.bundle import Bundle
from training.assess.photos import (
    MADE,
    NO_CLASS,
    OTHER_HALF,
    UPLOADS,
    Row,
    draw_uploads,
    measure_photos,
)
from training.data.photos.table import Part
from training.data.samples import Samples, Source


def write_photos(bundle: Bundle, folder: Path, source: Source, sheet: Path, output: Path) -> str:
    """Measure a bundle, write its figures beside ``output`` and there the page of all bundles measured so far.

    Returns:
        The page.

    Raises:
        DataError: See ``training.data.photos.table.read_photos``.
    """
    recipe = bundle.manifest.training["recipe"]
    _, validation = source.training().split(recipe["validation_fraction"], recipe["split_seed"])
    made_of = Samples(validation.images[:UPLOADS], validation.labels[:UPLOADS])
    beside = output.with_suffix("")
    beside.mkdir(parents=True, exist_ok=True)
    figures = measure_photos(bundle, folder, made_of, sheet)
    name = f"{bundle.manifest.name}-{bundle.manifest.version}"
    (beside / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw_uploads(beside / f"{name}.png", made_of, bundle)
    page = render_photos(beside)
    output.write_text(page, encoding="utf-8")
    return page


def render_photos(folder: Path) -> str:
    """Render the page of photos from the figures of bundles, JSON files in ``folder``, which lies beside the page."""
    files = sorted(folder.glob("*.json"))
    figures = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    names = [f"{found['name']}/{found['version']}" for found in figures]
    tables = [[Row(**row) for row in found["rows"]] for found in figures]
    heads = " | ".join(f"`{name}` squashed | `{name}`" for name in names)
    lines = "\n".join(
        _line(rows, [found["photos_from"] for found in figures])
        for rows in zip(*tables, strict=True)
    )
    pictures = "\n".join(f"![{path.stem}]({folder.name}/{path.stem}.png)" for path in files)
    made_uploads = "and on uploads made of training images"
    learnt_from = {
        "none": "trained on Fashion-MNIST alone",
        "half": f"trained on Fashion-MNIST, on half of the photos of a class, that of the rules, {made_uploads}",
        "all": f"trained on Fashion-MNIST, on all photos of a class, {made_uploads}",
    }
    made = "\n".join(
        f"- `{name}`: augmentation `{found['augmentation']}`, {learnt_from[found['photos_from']]}."
        for name, found in zip(names, figures, strict=True)
    )
    return f"""# Photos

Written by `python -m training photos`; do not edit. `docs/photos/` holds the figures.

What a model makes of {figures[0]["photos"]:,} photos of clothing and of other things, and of photos made of images of
Fashion-MNIST's validation part, as the service shows them to it: the item found, cut out and set on black (rule
`item-on-black`, `docs/decisions/0004-find-the-item.md`). Beside it, the same model on the same photo squashed to the
model's size in grey, as everyone does at first. In brackets the 95 % Wilson interval. A figure with a star is of photos
that the model learnt from, some or all of them, and so no test of it.

{made}

| photos | measure | goal | of | {heads} |
|---|---|---|---|{"---|---|" * len(figures)}
{lines}

The groups are top (T-shirt/top, Pullover, Coat, Shirt), trouser, dress, shoe (Sandal, Sneaker, Ankle boot) and bag.
The rules were chosen on one half of the photos and looked at on the other. Where nobody has labelled the kind of a
shoe, any shoe is right. A model's word that an image is none of its classes counts as a warning. The shop's shoes are
all sneakers. "Still right" is counted among images that the model gets right as the data set has them.

## What the model sees

Photos made of images of Fashion-MNIST, what a model sees of each, and its answer:

{pictures}

`python -m training photos FOLDER --sheet FILE` draws the same of a folder of photos.
"""


def _line(rows: Sequence[Row], learnt_from: Sequence[Part]) -> str:
    first = rows[0]
    goal = (
        ""
        if first.goal is None
        else f"{'at most' if first.is_limit else 'at least'} {first.goal:.0%}"
    )
    counts = " / ".join(dict.fromkeys(str(row.count) for row in rows))
    cells = " | ".join(
        f"{_share(row.naive_hits, row.count)} | {_share(row.hits, row.count)}{_star(row, part)}"
        for row, part in zip(rows, learnt_from, strict=True)
    )
    return f"| {first.photos} | {first.measure} | {goal} | {counts} | {cells} |"


def _star(row: Row, learnt_from: Part) -> str:
    """Mark a figure of photos that were learnt from."""
    never = row.photos.startswith((MADE, NO_CLASS)) or (
        learnt_from == "half" and row.photos.startswith(OTHER_HALF)
    )
    return "" if learnt_from == "none" or never else " *"


def _share(hits: int | None, count: int) -> str:
    if hits is None or not count:
        return ""
    low, high = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return f"{hits / count:.1%} ({low:.1%} to {high:.1%})"
