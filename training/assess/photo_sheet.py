"""The contact sheet of a bundle: pictures, what the bundle makes of them, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.imaging import read_picture
from service.imaging.heat_map import draw_heat_map
from training.assess.measured_bundle import Answers, Input, MeasuredBundle
from training.assess.photo_kinds import Picture
from training.data.sources.folder import MAX_PIXELS
from training.plots import plot_pairs

COLUMNS = 5


def draw_sheet(path: Path, measured: MeasuredBundle, pictures: Sequence[Picture]) -> None:
    """Draw pictures, each beside its heat map. Without activations, draw the model's input.

    Raises:
        DataError: A picture cannot be read.
    """
    images = [measured.prepare(picture) for picture in pictures]
    answers = measured.answer(images)
    pairs = [
        (
            read_picture(picture.data, MAX_PIXELS).image.convert("RGB"),
            _explain(images[number], answers, number),
            _describe(picture, answers, number, measured.manifest.class_names),
        )
        for number, picture in enumerate(pictures)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_pairs(path, pairs, COLUMNS)


def _explain(image: Input, answers: Answers, number: int) -> Input:
    if answers.activations is None:
        return image
    activation = answers.activations[number, answers.class_ids[number]]
    return np.asarray(draw_heat_map(image, activation))


def _describe(picture: Picture, answers: Answers, number: int, names: tuple[str, ...]) -> str:
    true = "/".join(names[class_id] for class_id in picture.classes) or "no class"
    is_unknown = answers.accepted is not None and not answers.accepted[number]
    return f"{true}\nas {names[answers.class_ids[number]]}{', rejected' if is_unknown else ''}"
