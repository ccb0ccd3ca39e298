"""Own what is measured of a bundle on photos, and ``docs/photos.md``. Must never choose anything by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from service.bundle import Bundle
from service.imaging import ModelInput, read_image
from training.data.photos.synthetic import GROUNDS, make_uploads
from training.data.photos.table import Photo, read_photos
from training.data.samples import Images, Samples
from training.data.sources.folder import MAX_PIXELS
from training.fit.answers import run_graph
from training.plots import plot_pairs

Mask = NDArray[np.bool_]
Classify = Callable[[Images], tuple[NDArray[np.int64], Mask]]
"""Images to class ids, and whether the model knows them."""

UPLOADS = 500
UPLOAD_SEED = 7
SHOWN = 120
GROUPS = {"top": (0, 2, 4, 6), "trouser": (1,), "dress": (3,), "shoe": (5, 7, 9), "bag": (8,)}
GARMENTS, BAG = (0, 1, 2, 3, 4, 6), 8
FIRST_HALF, OTHER_HALF = "home, half that rules were chosen on", "home, the other half"
NO_CLASS, MADE = "things of no class", "made of Fashion-MNIST"
HOME, SHOP, WORN = "clothing-dataset", "retail-demo-store", "B"


@dataclass(frozen=True)
class Seen:
    """What a model saw of uploads, by the service's rule and merely squashed, and its answers: class ids ``[N]``.

    ``mirrored`` are its answers to the mirrored uploads. ``known`` ``[N]`` tells what its distance says: always true of
    a model without one.
    """

    inputs: Sequence[ModelInput]
    answers: NDArray[np.int64]
    squashed: NDArray[np.int64]
    mirrored: NDArray[np.int64]
    known: Mask


@dataclass(frozen=True)
class Row:
    """A line of the table: how many of ``count`` uploads are counted by ``measure``, and by the naive squash.

    ``goal`` is a share, the least that is wanted, or the most where ``is_limit``.
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
    """Measure a bundle on a folder of photos, and on uploads made of ``validation``; draw some photos to ``sheet``.

    Raises:
        DataError: See ``training.data.photos.table.read_photos``.
    """
    photos = read_photos(folder)
    classify = _classify_with(bundle)
    uploads = [(folder / photo.file).read_bytes() for photo in photos]
    seen = _look_at(uploads, bundle, classify)
    rows = [*_rows_of_photos(photos, seen), *_rows_of_uploads(validation, bundle, classify)]
    _draw_photos(sheet, photos, uploads, seen, bundle)
    return {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "augmentation": bundle.manifest.training.get("recipe", {}).get("augmentation"),
        "photos_from": bundle.manifest.training.get("recipe", {}).get("photos_from", "none"),
        "photos": len(photos),
        "rows": [vars(row) for row in rows],
    }


def draw_uploads(path: Path, validation: Samples, bundle: Bundle) -> None:
    """Draw what a model sees of uploads made of the first image of each class, on each ground."""
    classify = _classify_with(bundle)
    chosen = [
        int(np.argmax(validation.labels == label))
        for label in range(len(bundle.manifest.class_names))
    ]
    pairs: list[tuple[Any, Any, str]] = []
    for ground in GROUNDS:
        uploads = make_uploads(validation.images[chosen], ground, UPLOAD_SEED)
        seen = [_see(upload, bundle) for upload in uploads]
        names = [bundle.manifest.class_names[answer] for answer in classify(_stack(seen))[0]]
        pairs += [
            (_open(upload), item.image, name)
            for upload, item, name in zip(uploads, seen, names, strict=True)
        ]
    plot_pairs(path, pairs)


def _classify_with(bundle: Bundle) -> Classify:
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])

    def classify(images: Images) -> tuple[NDArray[np.int64], Mask]:
        answers = run_graph(session, images, 500)
        threshold = bundle.manifest.distance_threshold
        known = np.full(len(images), True) if threshold is None else answers.distances <= threshold
        return answers.probabilities.argmax(axis=1), known

    return classify


def _look_at(uploads: Sequence[bytes], bundle: Bundle, classify: Classify) -> Seen:
    inputs = [_see(upload, bundle) for upload in uploads]
    mirrored = [_see(_mirror(upload), bundle) for upload in uploads]
    squashed = np.stack([_squash(upload, bundle.manifest.input_size) for upload in uploads])
    answers, known = classify(_stack(inputs))
    return Seen(inputs, answers, classify(squashed)[0], classify(_stack(mirrored))[0], known)


def _see(upload: bytes, bundle: Bundle) -> ModelInput:
    return read_image(upload, bundle.manifest.input_size, MAX_PIXELS)


def _stack(inputs: Sequence[ModelInput]) -> Images:
    return np.stack([seen.image for seen in inputs])


def _open(upload: bytes) -> Image.Image:
    return Image.open(BytesIO(upload)).convert("RGB")


def _squash(upload: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Do what everyone does at first: make it grey and resize it."""
    return np.asarray(_open(upload).convert("L").resize(size[::-1], Image.Resampling.BILINEAR))


def _mirror(upload: bytes) -> bytes:
    buffer = BytesIO()
    _open(upload).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _rows_of_photos(photos: Sequence[Photo], seen: Seen) -> list[Row]:
    right, right_group = _judge(photos, seen.answers)
    naive, naive_group = _judge(photos, seen.squashed)
    right_mirrored, _ = _judge(photos, seen.mirrored)
    classes = [set(photo.classes) for photo in photos]
    known = np.array([bool(found) for found in classes])
    home = np.array([photo.source == HOME for photo in photos])
    shop = np.array([photo.source == SHOP for photo in photos])
    garment = home & known & np.array([found <= set(GARMENTS) for found in classes])
    shoe = known & np.array([found <= set(GROUPS["shoe"]) for found in classes])
    bag = np.array([found == {BAG} for found in classes])
    chosen_on = np.array([photo.is_developed_on for photo in photos])
    accepted = seen.known & [not (found.item and found.item.warnings) for found in seen.inputs]
    return [
        _row("home, six garment classes", "top-1", garment, right, naive, 0.55),
        _row("home, six garment classes", "right group", garment, right_group, naive_group, 0.78),
        _row(f"{FIRST_HALF}, six garment classes", "top-1", garment & chosen_on, right, naive),
        _row(f"{OTHER_HALF}, six garment classes", "top-1", garment & ~chosen_on, right, naive),
        _row(
            f"{FIRST_HALF}, six garment classes",
            "right group",
            garment & chosen_on,
            right_group,
            naive_group,
        ),
        _row(
            f"{OTHER_HALF}, six garment classes",
            "right group",
            garment & ~chosen_on,
            right_group,
            naive_group,
        ),
        _row(
            "home, shoes of any kind, mostly pairs from above",
            "shoe group",
            home & shoe,
            right_group,
            naive_group,
        ),
        _row(
            f"{OTHER_HALF}, shoes", "shoe group", home & shoe & ~chosen_on, right_group, naive_group
        ),
        _row(
            "shop, shoes",
            "top-1 in either orientation",
            shop & shoe,
            right | right_mirrored,
            naive,
            0.85,
        ),
        _row("shop, shoes", "shoe group", shop & shoe, right_group, naive_group, 0.97),
        _row("shop, bags", "top-1", shop & bag, right, naive, 0.9),
        _row(
            "all but bags",
            "called Bag",
            known & ~bag,
            seen.answers == BAG,
            seen.squashed == BAG,
            0.1,
            is_limit=True,
        ),
        _row(
            f"{OTHER_HALF}, all but bags",
            "called Bag",
            known & ~bag & ~chosen_on,
            seen.answers == BAG,
            seen.squashed == BAG,
            is_limit=True,
        ),
        _row(
            "all",
            "right answers lost by mirroring",
            known,
            right & ~right_mirrored,
            None,
            0.02,
            is_limit=True,
        ),
        _row("all", "right", known, right, naive),
        _row("all, mirrored", "right", known, right_mirrored, None),
        _row(NO_CLASS, "accepted without a warning", ~known, accepted, None, 0.3, is_limit=True),
        _row("home, of a class", "accepted without a warning", home & known, accepted, None),
        _row(
            "worn by a model",
            "accepted without a warning",
            known & _are_worn(photos),
            accepted,
            None,
        ),
    ]


def _rows_of_uploads(validation: Samples, bundle: Bundle, classify: Classify) -> list[Row]:
    known, right = validation.labels, classify(validation.images)[0] == validation.labels
    rows = []
    for ground in GROUNDS:
        seen = _look_at(make_uploads(validation.images, ground, UPLOAD_SEED), bundle, classify)
        name = f"{MADE}, on {ground}"
        same, naive = seen.answers == known, seen.squashed == known
        rows.append(_row(name, "still right", right, same, naive, 0.95))
        if ground == "white":
            rows.append(
                _row(f"{name}, mirrored", "still right", right, seen.mirrored == known, None)
            )
            kept = np.array([not found.negated for found in seen.inputs])
            rows.append(
                _row(name, "wrong polarity", np.ones_like(kept), kept, None, 0.0, is_limit=True)
            )
    return rows


def _judge(photos: Sequence[Photo], answers: NDArray[np.int64]) -> tuple[Mask, Mask]:
    """Tell for each answer whether it may be right, and whether its group is."""
    pairs = list(zip(photos, answers.tolist(), strict=True))
    group = {class_id: name for name, members in GROUPS.items() for class_id in members}
    right = np.array([answer in photo.classes for photo, answer in pairs])
    return right, np.array(
        [group[answer] in {group[found] for found in photo.classes} for photo, answer in pairs]
    )


def _are_worn(photos: Sequence[Photo]) -> Mask:
    return np.array([photo.tier == WORN for photo in photos])


def _row(
    photos: str,
    measure: str,
    of: Mask,
    hits: Mask,
    naive: Mask | None,
    goal: float | None = None,
    *,
    is_limit: bool = False,
) -> Row:
    naive_hits = None if naive is None else int((naive & of).sum())
    return Row(photos, measure, int(of.sum()), int((hits & of).sum()), naive_hits, goal, is_limit)


def _draw_photos(
    sheet: Path, photos: Sequence[Photo], uploads: Sequence[bytes], seen: Seen, bundle: Bundle
) -> None:
    chosen = np.random.default_rng(UPLOAD_SEED).permutation(len(photos))[:SHOWN]
    names = bundle.manifest.class_names
    pairs = []
    for number in chosen:
        true = "/".join(names[class_id] for class_id in photos[number].classes) or "none"
        found = seen.inputs[number]
        warnings = ", ".join(found.item.warnings) if found.item else ""
        caption = f"{true}\nas {names[seen.answers[number]]}\n{warnings}"
        pairs.append((_open(uploads[number]), found.image, caption))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    plot_pairs(sheet, pairs)
