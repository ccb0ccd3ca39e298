"""The page on photos: how every bundle measured so far classifies what people upload."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import binomtest

from service.bundle import Manifest
from service.imaging import LETTERBOX
from training.assess.photo_kinds import KINDS, MADE_KINDS, Kind
from training.assess.photos import Hits, Row

NOTHING = "–"


@dataclass(frozen=True)
class Figures:
    """The figures of one bundle: ``name`` with version, and the rows by the name of their kind."""

    name: str
    is_photo_model: bool
    rows: dict[str, Row]


def write_figures(path: Path, manifest: Manifest, rows: Sequence[Row]) -> None:
    """Write the figures of a bundle as JSON, for ``render_photos``."""
    figures = {
        "name": f"{manifest.name}/{manifest.version}",
        "preprocessing": manifest.preprocessing,
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def render_photos(folder: Path) -> str:
    """Render the page from the JSON files in ``folder``. The page must lie beside this folder."""
    paths = sorted(folder.glob("*.json"))
    by_path = {path: _read(path) for path in paths}
    found = sorted(by_path.values(), key=lambda figures: not figures.is_photo_model)
    drawn = [path.stem for path in paths if path.with_suffix(".png").exists()]
    sheets = "\n".join(f"![{name}]({folder.name}/{name}.png)" for name in drawn)
    details = "\n\n".join(_detail(figures) for figures in found)
    return f"""# Photos

Written by `python -m training photos`; do not edit. The figures are in `{folder.name}/`.

## How well does each model classify what people upload?

Each cell holds three shares in percent: answers with the correct class / with the correct group /
accepted (`in_distribution` is true).

{_summarize(found)}

- Training saw none of these pictures: a tenth of each folder of photos is kept back for validation.
  But choices were made on these pictures: the input size of a photo model by its correct answers,
  and its threshold by its accepted pictures. So both shares are a little too good: they are
  validation, not a test.
- "squashed" is the same model without the service's preparation: the picture is only resized to
  the model's input, and made grey for a grey model.
- The goals are those of photo models.
- The class counts only for pictures with one possible class. Nobody labelled the kind of the
  "other shoes".
- The groups are top (T-shirt/top, Pullover, Coat, Shirt), trouser, dress, shoe (Sandal, Sneaker,
  Ankle boot) and bag.
- "home" photos show one item, mostly on a plain background. "worn" items are cut out of photos of
  people along the item's box.
- "made" pictures come from validation images of Fashion-MNIST that the reference model
  (`resnet-8/3`) classifies correctly as they are: photos on white with colour, texture and shadow;
  images at 32 to 800 pixels, bright on black or dark on white; and figures with a colour map, with
  axes or without. The choice favours the reference model: its answers to these images are all
  correct, and another model's are not.
- Pictures of "no class" show nothing that the models know, so models should not accept them.
{_name_incomplete(found)}
{details}

## Where does a model look?

Each sheet shows made pictures, one kind in each row. Beside each picture is the heat map of the
answer: where it is yellow, the model saw signs of this class. For a grey model, the sheet has the
model's input there instead.

{sheets}

`python -m training photos FOLDER --sheet FILE` draws such a sheet of photos.
"""


def _name_incomplete(found: Sequence[Figures]) -> str:
    made = {kind.name for kind in MADE_KINDS}
    names = [f"`{figures.name}`" for figures in found if not made & set(figures.rows)]
    if not names:
        return ""
    return f"""\
- {" and ".join(names)}: measured without Fashion-MNIST, so the "made" rows are left out. Pass its
  folder with `--data`.
"""


def _read(path: Path) -> Figures:
    figures = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(**{**row, "seen": Hits(**row["seen"]), "squashed": Hits(**row["squashed"])})
        for row in figures["rows"]
    ]
    by_kind = {row.kind: row for row in rows}
    return Figures(figures["name"], figures["preprocessing"] == LETTERBOX, by_kind)


def _summarize(found: Sequence[Figures]) -> str:
    heads = [f"`{figures.name}` | squashed" for figures in found]
    lines = [
        f"| pictures | count | goal | {' | '.join(heads)} |",
        "|---|---|---|" + "---|---|" * len(found),
    ]
    for kind in KINDS:
        rows = [figures.rows.get(kind.name) for figures in found]
        counts = " or ".join(dict.fromkeys(str(row.count) for row in rows if row))
        cells = " | ".join(_join_both(row) for row in rows)
        if counts:
            lines.append(f"| {kind.name} | {counts} | {_join_goals(kind)} | {cells} |")
    return "\n".join(lines)


def _join_goals(kind: Kind) -> str:
    goals = [NOTHING if goal is None else f"{100 * goal:.0f}" for goal in _goals(kind)]
    return " / ".join(goals if kind.shows_class else [*goals[:2], f"at most {goals[2]}"])


def _goals(kind: Kind) -> tuple[float | None, ...]:
    return kind.correct_class, kind.correct_group, kind.accepted


def _join_both(row: Row | None) -> str:
    return "|" if row is None else f"{_join(row, row.seen)} | {_join(row, row.squashed)}"


def _join(row: Row, hits: Hits) -> str:
    shares = _shares(row, hits)
    return " / ".join(f"{100 * part / of:.1f}" if of else NOTHING for part, of in shares)


def _shares(row: Row, hits: Hits) -> list[tuple[int, int]]:
    """Return hits and counts of class, group and acceptance; the count is 0 if there is none."""
    pairs = (
        (hits.correct_class, row.class_count),
        (hits.correct_group, row.count),
        (hits.accepted, row.count),
    )
    return [(0, 0) if part is None else (part, of) for part, of in pairs]


def _detail(figures: Figures) -> str:
    lines = [
        f"## How sure are the figures of `{figures.name}`?",
        "",
        "Brackets hold the 95 % Wilson interval.",
        "",
        "| pictures | class | group | accepted | squashed: class | group | accepted |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        row = figures.rows.get(kind.name)
        if row is not None:
            seen = [
                _share(part, of) + (_judge(part, of, goal, kind) if figures.is_photo_model else "")
                for (part, of), goal in zip(_shares(row, row.seen), _goals(kind), strict=True)
            ]
            squashed = [_share(part, of) for part, of in _shares(row, row.squashed)]
            lines.append(f"| {kind.name} | {' | '.join([*seen, *squashed])} |")
    return "\n".join(lines)


def _share(part: int, of: int) -> str:
    if not of:
        return ""
    low, high = binomtest(part, of).proportion_ci(0.95, method="wilson")
    return f"{part / of:.1%} ({low:.1%} to {high:.1%}) of {of}"


def _judge(part: int, of: int, goal: float | None, kind: Kind) -> str:
    if goal is None or not of:
        return ""
    is_met = part / of >= goal if kind.shows_class else part / of <= goal
    return f", goal {goal:.0%} {'met' if is_met else 'missed'}"
