"""Measurement of a bundle on photos, worn items and pictures made from the data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.assess.measured_bundle import Answers, MeasuredBundle
from training.assess.photo_kinds import Kind, Picture
from training.data.photos.table import find_group


@dataclass(frozen=True)
class Hits:
    """How many answers have the ``correct_class``, have the ``correct_group``, are ``accepted``.

    None: the pictures show nothing of any class, or the bundle has no distances.
    """

    correct_class: int | None
    correct_group: int | None
    accepted: int | None


@dataclass(frozen=True)
class Row:
    """The hits among ``count`` pictures of a ``kind``.

    The class is known of ``class_count`` pictures; only they count for ``correct_class``. ``seen``:
    the service prepares the pictures. ``squashed``: they are only resized.
    """

    kind: str
    count: int
    class_count: int
    seen: Hits
    squashed: Hits


def measure_kind(measured: MeasuredBundle, kind: Kind, pictures: Sequence[Picture]) -> Row:
    """Measure a bundle on the pictures of a kind. There must be at least one.

    Raises:
        DataError: A picture cannot be read.
    """
    seen = measured.answer([measured.prepare(picture) for picture in pictures])
    squashed = measured.answer([measured.squash(picture) for picture in pictures])
    class_count = sum(len(picture.classes) == 1 for picture in pictures)
    counted = (_count(pictures, answers) for answers in (seen, squashed))
    return Row(kind.name, len(pictures), class_count, *counted)


def _count(pictures: Sequence[Picture], answers: Answers) -> Hits:
    accepted = None if answers.accepted is None else int(answers.accepted.sum())
    if not any(picture.classes for picture in pictures):
        return Hits(None, None, accepted)
    pairs = list(zip(pictures, answers.class_ids.tolist(), strict=True))
    return Hits(
        sum(picture.classes == (class_id,) for picture, class_id in pairs),
        sum(
            find_group(class_id) in map(find_group, picture.classes) for picture, class_id in pairs
        ),
        accepted,
    )
