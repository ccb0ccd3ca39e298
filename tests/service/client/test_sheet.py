"""The folder with what the model saw."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from service.client import UnreachableError, UsageError
from service.client.rows import Row
from service.client.sheet import Sheet


def row(path: Path, probability: float = 0.5, **cells: Any) -> Row:
    """Return the row of a classified image, with a picture and a heat map."""
    pictures = {"image": b"seen " + path.name.encode(errors="replace"), "heat_map": b"heat"}
    explanation: dict[str, Any] = {
        name: b64encode(content).decode() for name, content in pictures.items()
    }
    explanation |= {"warnings": ["cut off"]}
    values: dict[str, Any] = {"class_id": 0, "class_name": "Bag", "model": "garments/1"}
    values |= {"explanation": explanation} | cells
    return Row(str(path), probability=probability, **values)


def articles(sheet: Sheet) -> list[str]:
    """Write the page; return its articles in their order."""
    return re.findall(r"<article.*?</article>", sheet.write().read_text("utf-8"), re.DOTALL)


def test_pictures_become_files(tmp_path: Path) -> None:
    """Each picture is a PNG of its own, and the row names it; images of one name stay apart."""
    sheet = Sheet(tmp_path / "deeper" / "seen")
    for folder in ("a", "b"):
        saved = sheet.add(row(tmp_path / folder / "boot #1.png")).explanation
        assert saved is not None
        assert (sheet.folder / saved["image"]).read_bytes() == b"seen boot #1.png"
        assert (sheet.folder / saved["heat_map"]).read_bytes() == b"heat"
        assert saved["warnings"] == ["cut off"]
    assert len(list(sheet.folder.glob("*.png"))) == 4
    assert len(articles(sheet)) == 2


def test_names_are_the_same_in_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run, with another spelling of the path, writes the same files."""
    monkeypatch.chdir(tmp_path)
    first = Sheet(tmp_path / "seen").add(row(tmp_path / "boot.png"))
    assert Sheet(tmp_path / "seen").add(row(Path("./boot.png"))).explanation == first.explanation


@pytest.mark.parametrize("name", ["x" * 250, "靴", "\udc80", "a\nb", "50%", "<b>&amp;"])
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    """Long names, other scripts, bytes that are not UTF-8 and marks of HTML are shown safely."""
    sheet = Sheet(tmp_path)
    saved = sheet.add(row(tmp_path / "photos" / f"{name}.png")).explanation
    assert saved is not None
    assert (tmp_path / saved["image"]).exists()
    (article,) = articles(sheet)
    assert "<b>" not in article
    assert len(re.findall(r'src="[^"]+"', article)) == 3


def test_doubtful_answers_come_first(tmp_path: Path) -> None:
    """Wrong answers come first, then unknown items, then the least sure answers."""
    sheet = Sheet(tmp_path)
    sheet.add(row(Path("sure"), 0.9, label="Bag"))
    sheet.add(row(Path("unsure"), 0.4))
    sheet.add(row(Path("unknown"), 0.8, in_distribution=False))
    sheet.add(row(Path("wrong"), 0.99, label="Coat"))
    found = articles(sheet)
    assert [re.findall(r"<br>(\w+)</p>", text)[0] for text in found] == [
        "wrong",
        "unknown",
        "unsure",
        "sure",
    ]
    assert "Bag, probability 0.990 (garments/1)<br>true class: Coat" in found[0]
    assert "looks like none of the classes<br>warnings: cut off" in found[1]
    assert [text.startswith('<article class="wrong">') for text in found] == [True] + [False] * 3


def test_row_without_an_explanation_has_no_place(tmp_path: Path) -> None:
    """A failed image, or an earlier answer without pictures, is not on the page."""
    sheet = Sheet(tmp_path)
    failed = Row.failed(Path("a.png"), UnreachableError("gone"))
    assert sheet.add(failed) == failed
    sheet.add_saved(failed)
    assert articles(sheet) == []


def test_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """The error names a folder that cannot be made, or a page that cannot be written."""
    (tmp_path / "seen").touch()
    with pytest.raises(UsageError, match=r"cannot make the folder .*seen"):
        Sheet(tmp_path / "seen")
    (tmp_path / "index.html").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*index.html"):
        Sheet(tmp_path).write()
