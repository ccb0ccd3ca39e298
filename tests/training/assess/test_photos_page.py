"""The page on photos: shares, intervals and goals of all bundles that have figures."""

from __future__ import annotations

from pathlib import Path

from service.bundle import Manifest
from tests.docs.page import find_table
from tests.service.bundles import write_linear_bundle, write_photo_bundle
from tests.training.fashion_mnist import ROOT
from training.assess.photo_kinds import HOME, HOME_THINGS, WHITE_SHOES
from training.assess.photos import Hits, Row
from training.assess.photos_page import render_photos, write_figures

ROWS = (
    Row(HOME.name, 200, 100, Hits(95, 190, 199), Hits(50, 100, 120)),
    Row(HOME_THINGS.name, 50, 0, Hits(None, None, 10), Hits(None, None, 20)),
)


def write_two(tmp_path: Path) -> tuple[Manifest, Manifest]:
    """Write the figures of a grey bundle, and then those of a photo bundle."""
    photo = write_photo_bundle(tmp_path / "a").manifest
    grey = write_linear_bundle(tmp_path / "b").manifest
    folder = tmp_path / "photos"
    folder.mkdir()
    write_figures(folder / "linear-1.json", grey, ROWS[:1])
    write_figures(folder / "colours-1.json", photo, ROWS)
    return photo, grey


def test_summary_has_a_row_for_each_kind(tmp_path: Path) -> None:
    """Cells hold class / group / accepted in percent; a bundle without a figure has empty cells."""
    write_two(tmp_path)
    page = render_photos(tmp_path / "photos")
    assert "| `colours/1` | squashed | `linear/1` | squashed |" in page
    home, things = find_table(page, "pictures | count")
    assert home == [
        HOME.name,
        "200",
        "92 / 98 / 97",
        *["95.0 / 95.0 / 99.5", "50.0 / 50.0 / 60.0"] * 2,
    ]
    goal = "– / – / at most 8"
    assert things == [HOME_THINGS.name, "50", goal, "– / – / 20.0", "– / – / 40.0", "", ""]


def test_details_have_intervals_and_goals(tmp_path: Path) -> None:
    """A goal is met or missed, a maximum too. Grey bundles have no goals."""
    write_two(tmp_path)
    page = render_photos(tmp_path / "photos")
    home, things = find_table(page, "pictures | class")
    assert home[1] == "95.0% (88.8% to 97.8%) of 100, goal 92% met"
    assert home[2] == "95.0% (91.0% to 97.3%) of 200, goal 98% missed"
    assert home[4] == "50.0% (40.4% to 59.6%) of 100"
    assert things[1:4] == ["", "", "20.0% (11.2% to 33.0%) of 50, goal 8% missed"]
    _, grey = page.split("`linear/1`?")
    assert "goal 92%" not in grey


def test_page_shows_the_sheet_of_each_bundle(tmp_path: Path) -> None:
    """The page has a picture for each file of figures that has one."""
    write_two(tmp_path)
    assert "![" not in render_photos(tmp_path / "photos")
    for name in ("colours-1", "linear-1"):
        (tmp_path / "photos" / f"{name}.png").touch()
    page = render_photos(tmp_path / "photos")
    assert "![colours-1](photos/colours-1.png)\n![linear-1](photos/linear-1.png)" in page


def test_bundle_without_made_pictures_is_named(tmp_path: Path) -> None:
    """The page says which bundle was measured without the data set."""
    photo, _ = write_two(tmp_path)
    page = render_photos(tmp_path / "photos")
    assert "- `colours/1` and `linear/1`: measured without Fashion-MNIST" in page
    made = Row(WHITE_SHOES.name, 10, 10, Hits(9, 9, 9), Hits(9, 9, 9))
    write_figures(tmp_path / "photos" / "colours-1.json", photo, [*ROWS, made])
    page = render_photos(tmp_path / "photos")
    assert "- `linear/1`: measured without Fashion-MNIST" in page


def test_page_in_docs_is_current() -> None:
    """docs/photos.md is rendered from the figures in docs/photos/, and each sheet exists."""
    folder = ROOT / "docs" / "photos"
    assert (ROOT / "docs" / "photos.md").read_text() == render_photos(folder)
    sheets = {path.stem: path.stat().st_size for path in folder.glob("*.png")}
    assert set(sheets) == {path.stem for path in folder.glob("*.json")}
    assert max(sheets.values()) <= 300_000
