"""The measurement of a bundle on photos: from folders to figures, contact sheets and a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.bundle import Bundle
from training.assess.measured_bundle import MeasuredBundle
from training.assess.photo_kinds import (
    MADE_KINDS,
    Picture,
    Pictures,
    crop_worn_kinds,
    encode_images,
    make_upload_kinds,
    read_photo_kinds,
)
from training.assess.photo_sheet import draw_sheet
from training.assess.photos import measure_kind
from training.assess.photos_page import render_photos, write_figures
from training.data.samples import Samples, Source
from training.errors import DataError

REFERENCE_IMAGES = 3_000
SHOWN_MADE, SHOWN_PHOTOS = 5, 10  # the pictures of each kind on a sheet


@dataclass(frozen=True)
class Material:
    """What bundles are measured on: labelled ``photos``, ``worn`` garments and the data set.

    ``reference`` is the bundle that chooses the images of the data set: those that it classifies
    correctly. ``worn`` and ``source`` may be None.
    """

    photos: Path
    worn: Path | None
    source: Source | None
    reference: Bundle


def write_photos(bundle: Bundle, material: Material, sheet: Path, output: Path) -> str:
    """Measure a bundle and write the page of all bundles measured so far.

    The bundle's figures, and a contact sheet of made pictures, are written into a folder beside
    ``output``. The PNG file ``sheet`` shows photos.

    Returns:
        The page.

    Raises:
        DataError: A picture cannot be read, the bundle does not fit the data set, or ``sheet`` is
            in the page's folder: the sheets there hold no photos, so that they may be published.
    """
    measured, manifest = MeasuredBundle(bundle), bundle.manifest
    beside = output.with_suffix("")
    if beside.resolve() in sheet.resolve().parents:
        raise DataError(
            f"{beside} is for the page's own sheets, of made pictures: choose another folder for "
            "the sheet of photos"
        )
    beside.mkdir(parents=True, exist_ok=True)
    rows, made, photos = [], list[Picture](), list[Picture]()
    for kind, pictures in _read_kinds(bundle, material):
        rows.append(measure_kind(measured, kind, pictures))
        is_made = kind in MADE_KINDS
        shown, count = (made, SHOWN_MADE) if is_made else (photos, SHOWN_PHOTOS)
        shown += pictures[:: -(-len(pictures) // count)]
    name = f"{manifest.name}-{manifest.version}"
    write_figures(beside / f"{name}.json", manifest, rows)
    if made:
        draw_sheet(beside / f"{name}.png", measured, made)
    draw_sheet(sheet, measured, photos)
    page = render_photos(beside)
    output.write_text(page, encoding="utf-8")
    return page


def _read_kinds(bundle: Bundle, material: Material) -> Iterator[Pictures]:
    """Yield the kinds of which there is a picture."""
    source, reference = material.source, material.reference
    made = make_upload_kinds(_choose_images(bundle, source, reference)) if source else ()
    worn = crop_worn_kinds(material.worn) if material.worn else ()
    for kinds in (read_photo_kinds(material.photos), worn, made):
        for kind, pictures in kinds:
            if pictures:
                yield kind, pictures


def _choose_images(bundle: Bundle, source: Source, reference: Bundle) -> Samples:
    """Choose validation images of the bundle that the reference classifies correctly."""
    names, known = bundle.manifest.class_names, source.class_names
    if names != known:
        raise DataError(
            f"{bundle.folder} has the classes {', '.join(names)}, but the data set has the classes "
            f"{', '.join(known)}: measure a bundle of the same classes"
        )
    samples = _split_validation(bundle, source)
    first = Samples(samples.images[:REFERENCE_IMAGES], samples.labels[:REFERENCE_IMAGES])
    judge = MeasuredBundle(reference)
    inputs = [judge.prepare(picture) for picture in encode_images(first)]
    is_right = judge.answer(inputs).class_ids == first.labels
    return Samples(first.images[is_right], first.labels[is_right])


def _split_validation(bundle: Bundle, source: Source) -> Samples:
    recipe = bundle.manifest.training.get("recipe", {})
    try:
        fraction, seed = recipe["validation_fraction"], recipe["split_seed"]
    except KeyError as error:
        raise DataError(
            f"the manifest of {bundle.folder} has no training.recipe.{error.args[0]}, so it is "
            "unknown which images the model did not see; measure a bundle that `python -m training "
            "export` wrote"
        ) from None
    _, validation = source.training().split(fraction, seed)
    return validation
