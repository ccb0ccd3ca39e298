"""Measurement of a bundle on photos. No choice is based on these figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from service.bundle import Bundle
from service.imaging import InputSpec, ModelInput, read_image, read_picture
from training.data.photos.synthetic import BACKGROUNDS, make_photos
from training.data.photos.table import Photo, read_photos
from training.data.samples import Images, Samples
from training.data.sources.folder import MAX_PIXELS
from training.fit.answers import run_graph
from training.plots import plot_pairs

ClassIds = NDArray[np.int64]
Mask = NDArray[np.bool_]
Classify = Callable[[Images], tuple[ClassIds, Mask]]
"""Maps images to class ids, and to whether their distance is within the threshold."""

Hits = tuple[Mask, Mask | None]
"""Masks of the photos that are hits: with the service's preprocessing, and squashed (or None)."""

MADE_PHOTOS_SEED = 7
SHOWN_PHOTOS = 120
GROUPS = {"top": (0, 2, 4, 6), "trouser": (1,), "dress": (3,), "shoe": (5, 7, 9), "bag": (8,)}
GARMENTS, BAG = (0, 1, 2, 3, 4, 6), 8
# Two sources and a tier in labels.csv.
HOME, SHOP, WORN = "clothing-dataset", "retail-demo-store", "B"

# Names of groups of photos in the rows of the table.
DEVELOPMENT_HALF, HELD_OUT_HALF = "home, development half", "home, held-out half"
NO_CLASS, MADE = "objects of no class", "made from Fashion-MNIST"


@dataclass(frozen=True)
class Seen:
    """The model inputs made from N photos, and the class ids ``[N]`` that the model answered.

    The service's preprocessing makes ``inputs``, and ``answers`` are the answers to them.
    ``squashed`` are the answers to photos that are only resized. ``mirrored`` are the answers to
    mirrored photos. ``known`` ``[N]`` tells whether the distance is within the threshold. It is
    true for every photo if the model has no distances.
    """

    inputs: Sequence[ModelInput]
    answers: ClassIds
    squashed: ClassIds
    mirrored: ClassIds
    known: Mask


@dataclass(frozen=True)
class Row:
    """A row of the table: ``hits`` of ``count`` photos fulfil ``measure``.

    ``naive_hits`` is the number of hits among squashed photos. ``goal`` is the wanted minimum
    share, or the maximum share if ``is_limit``.
    """

    photos: str
    measure: str
    count: int
    hits: int
    naive_hits: int | None
    goal: float | None = None
    is_limit: bool = False


def measure_photos(
    bundle: Bundle, folder: Path, validation: Samples, sheet: Path
) -> dict[str, Any]:
    """Measure a bundle on labelled photos and on photos made from ``validation``.

    The PNG file ``sheet`` shows some labelled photos.

    Raises:
        DataError: The table of photos cannot be read.
    """
    photos = read_photos(folder)
    classify = _classify_with(bundle)
    files = [(folder / photo.file).read_bytes() for photo in photos]
    seen = _look_at(files, bundle, classify)
    rows = [*_rows_of_photos(photos, seen), *_rows_of_made_photos(validation, bundle, classify)]
    _draw_photos(sheet, photos, files, seen, bundle)
    recipe = bundle.manifest.training.get("recipe", {})
    return {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "augmentation": recipe.get("augmentation"),
        "photos_from": recipe.get("photos_from", "none"),
        "photos": len(photos),
        "rows": [vars(row) for row in rows],
    }


def draw_made_photos(path: Path, validation: Samples, bundle: Bundle) -> None:
    """Draw synthetic photos, one for each class and background, beside the model's inputs."""
    classify, class_names = _classify_with(bundle), bundle.manifest.class_names
    first = [int(np.argmax(validation.labels == label)) for label in range(len(class_names))]
    pairs: list[tuple[Any, Any, str]] = []
    for background in BACKGROUNDS:
        files = make_photos(validation.images[first], background, MADE_PHOTOS_SEED)
        inputs = [_see(file, bundle) for file in files]
        answers, _ = classify(_stack(inputs))
        pairs += [
            (_open(file), seen.image, class_names[answer])
            for file, seen, answer in zip(files, inputs, answers, strict=True)
        ]
    plot_pairs(path, pairs)


def _classify_with(bundle: Bundle) -> Classify:
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    threshold = bundle.manifest.distance_threshold

    def classify(images: Images) -> tuple[ClassIds, Mask]:
        answers = run_graph(session, images, 500)
        known = np.full(len(images), True) if threshold is None else answers.distances <= threshold
        return answers.probabilities.argmax(axis=1), known

    return classify


def _look_at(files: Sequence[bytes], bundle: Bundle, classify: Classify) -> Seen:
    inputs = [_see(file, bundle) for file in files]
    mirrored = [_see(_mirror(file), bundle) for file in files]
    squashed = np.stack([_squash(file, bundle.manifest.input_size) for file in files])
    answers, known = classify(_stack(inputs))
    return Seen(inputs, answers, classify(squashed)[0], classify(_stack(mirrored))[0], known)


def _see(file: bytes, bundle: Bundle) -> ModelInput:
    spec = InputSpec(bundle.manifest.preprocessing, bundle.manifest.input_size)
    return read_image(file, spec, MAX_PIXELS)


def _stack(inputs: Sequence[ModelInput]) -> Images:
    return np.stack([seen.image for seen in inputs])


def _open(file: bytes) -> Image.Image:
    return read_picture(file, MAX_PIXELS).image.convert("RGB")


def _squash(file: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert to grey and resize, like a client that skips the service's preprocessing."""
    return np.asarray(_open(file).convert("L").resize(size[::-1], Image.Resampling.BILINEAR))


def _mirror(file: bytes) -> bytes:
    buffer = BytesIO()
    _open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(frozen=True)
class Kinds:
    """The kinds of photos, as masks ``[N]``.

    ``known`` photos have a class. ``garment``, ``shoe`` and ``bag`` photos have possible classes of
    this kind only.
    """

    known: Mask
    home: Mask
    shop: Mask
    worn: Mask
    development: Mask
    garment: Mask
    shoe: Mask
    bag: Mask


def _sort(photos: Sequence[Photo]) -> Kinds:
    def mask(is_kind: Callable[[Photo], bool]) -> Mask:
        return np.array([is_kind(photo) for photo in photos])

    def only(*class_ids: int) -> Mask:
        return mask(lambda photo: bool(photo.classes) and set(photo.classes) <= set(class_ids))

    return Kinds(
        known=mask(lambda photo: bool(photo.classes)),
        home=mask(lambda photo: photo.source == HOME),
        shop=mask(lambda photo: photo.source == SHOP),
        worn=mask(lambda photo: photo.tier == WORN),
        development=mask(lambda photo: photo.is_in_development_half),
        garment=only(*GARMENTS),
        shoe=only(*GROUPS["shoe"]),
        bag=only(BAG),
    )


def _rows_of_photos(photos: Sequence[Photo], seen: Seen) -> list[Row]:
    kinds = _sort(photos)
    correct, correct_group = _judge(photos, seen.answers)
    naive, naive_group = _judge(photos, seen.squashed)
    mirrored, _ = _judge(photos, seen.mirrored)
    top_1, in_group = (correct, naive), (correct_group, naive_group)
    either_way = (correct | mirrored, naive)
    lost = (correct & ~mirrored, None)
    return [
        *_rows_of_garments(kinds, top_1, in_group),
        *_rows_of_shoes(kinds, either_way, in_group),
        _row("shop, bags", "top-1", kinds.shop & kinds.bag, top_1, 0.9),
        *_rows_of_bag_answers(kinds, (seen.answers == BAG, seen.squashed == BAG)),
        _limit("all", "correct answers lost by mirroring", kinds.known, lost, 0.02),
        _row("all", "correct class", kinds.known, top_1),
        _row("all, mirrored", "correct class", kinds.known, (mirrored, None)),
        *_rows_of_acceptance(kinds, seen),
    ]


def _rows_of_garments(kinds: Kinds, top_1: Hits, in_group: Hits) -> list[Row]:
    at_home = kinds.home & kinds.garment
    halves = ((DEVELOPMENT_HALF, kinds.development), (HELD_OUT_HALF, ~kinds.development))
    return [
        _row("home, six garment classes", "top-1", at_home, top_1, 0.55),
        _row("home, six garment classes", "correct group", at_home, in_group, 0.78),
        *(
            _row(f"{name}, six garment classes", measure, at_home & half, hits)
            for measure, hits in (("top-1", top_1), ("correct group", in_group))
            for name, half in halves
        ),
    ]


def _rows_of_shoes(kinds: Kinds, either_way: Hits, in_group: Hits) -> list[Row]:
    at_home, in_shop = kinds.home & kinds.shoe, kinds.shop & kinds.shoe
    held_out = at_home & ~kinds.development
    return [
        _row("home, shoes of any kind, mostly pairs from above", "shoe group", at_home, in_group),
        _row(f"{HELD_OUT_HALF}, shoes", "shoe group", held_out, in_group),
        _row("shop, shoes", "top-1 in either orientation", in_shop, either_way, 0.85),
        _row("shop, shoes", "shoe group", in_shop, in_group, 0.97),
    ]


def _rows_of_bag_answers(kinds: Kinds, bag_answers: Hits) -> list[Row]:
    others = kinds.known & ~kinds.bag
    held_out = others & ~kinds.development
    return [
        _limit("all except bags", "answered Bag", others, bag_answers, 0.1),
        _limit(f"{HELD_OUT_HALF}, all except bags", "answered Bag", held_out, bag_answers),
    ]


def _rows_of_acceptance(kinds: Kinds, seen: Seen) -> list[Row]:
    has_no_warning = [not (found.placed and found.placed.item.warnings) for found in seen.inputs]
    accepted = (seen.known & has_no_warning, None)
    known, measure = kinds.known, "accepted without a warning"
    return [
        _limit(NO_CLASS, measure, ~known, accepted, 0.3),
        _row("home, of a known class", measure, kinds.home & known, accepted),
        _row("worn by a person", measure, known & kinds.worn, accepted),
    ]


def _rows_of_made_photos(validation: Samples, bundle: Bundle, classify: Classify) -> list[Row]:
    labels = validation.labels
    correct = classify(validation.images)[0] == labels
    rows = []
    for background in BACKGROUNDS:
        files = make_photos(validation.images, background, MADE_PHOTOS_SEED)
        seen = _look_at(files, bundle, classify)
        name = f"{MADE}, background {background}"
        hits = (seen.answers == labels, seen.squashed == labels)
        rows.append(_row(name, "still correct", correct, hits, 0.95))
        if background == "white":
            mirrored = (seen.mirrored == labels, None)
            rows.append(_row(f"{name}, mirrored", "still correct", correct, mirrored))
            wrong = np.array([not (found.placed and found.placed.negated) for found in seen.inputs])
            everything = np.ones_like(wrong)
            rows.append(_limit(name, "wrong polarity", everything, (wrong, None), 0.0))
    return rows


def _judge(photos: Sequence[Photo], answers: ClassIds) -> tuple[Mask, Mask]:
    """Tell for each answer whether it is a possible class, and whether its group is possible."""
    group = {class_id: name for name, members in GROUPS.items() for class_id in members}
    pairs = list(zip(photos, answers.tolist(), strict=True))
    correct = [answer in photo.classes for photo, answer in pairs]
    correct_group = [
        group[answer] in {group[class_id] for class_id in photo.classes} for photo, answer in pairs
    ]
    return np.array(correct), np.array(correct_group)


def _row(photos: str, measure: str, of: Mask, hits: Hits, goal: float | None = None) -> Row:
    as_seen, naive = hits
    naive_hits = None if naive is None else int((naive & of).sum())
    return Row(photos, measure, int(of.sum()), int((as_seen & of).sum()), naive_hits, goal)


def _limit(photos: str, measure: str, of: Mask, hits: Hits, goal: float | None = None) -> Row:
    return replace(_row(photos, measure, of, hits, goal), is_limit=True)


def _draw_photos(
    sheet: Path, photos: Sequence[Photo], files: Sequence[bytes], seen: Seen, bundle: Bundle
) -> None:
    chosen = np.random.default_rng(MADE_PHOTOS_SEED).permutation(len(photos))[:SHOWN_PHOTOS]
    names = bundle.manifest.class_names
    pairs = []
    for number in chosen:
        true = "/".join(names[class_id] for class_id in photos[number].classes) or "none"
        found = seen.inputs[number]
        warnings = ", ".join(found.placed.item.warnings) if found.placed else ""
        caption = f"{true}\nas {names[seen.answers[number]]}\n{warnings}"
        pairs.append((_open(files[number]), found.image, caption))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    plot_pairs(sheet, pairs)
