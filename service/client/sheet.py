"""Saves what the model saw: PNG files, and an HTML page that shows them beside the photos."""

import html
import os
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from service.client.errors import UsageError
from service.client.files import identify
from service.client.rows import Row

PICTURES = ("image", "heat_map")
"""The fields of an explanation that are PNGs in base64."""
SHEET_FILE = "index.html"
MAX_NAME_CHARACTERS = 40
HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>What the model saw</title>
<style>
body { font-family: sans-serif; background: #eee; color: #222 }
article { display: inline-block; vertical-align: top; margin: 4px; padding: 8px;
  background: #fff }
article.wrong { outline: 3px solid #c00 }
img { width: 160px; height: 160px; object-fit: contain; background: #ddd;
  image-rendering: pixelated }
p { max-width: 490px; margin: 4px 0; overflow-wrap: anywhere }
</style>
<h1>What the model saw</h1>
<p>For each image: the file, the image as the model saw it, and a heat map if the model has one.
Wrong answers come first, then images that look like none of the classes, then the least sure
answers.</p>
"""


class Sheet:
    """A folder with the PNGs of each explanation, and their page.

    Raises:
        UsageError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: list[Row] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error

    def add(self, row: Row) -> Row:
        """Save the row's PNGs; return the row with their file names instead of the base64 texts."""
        if row.explanation is None:
            return row
        explanation = dict(row.explanation)
        for field in PICTURES:
            if explanation.get(field):
                name = _name_file(row.path, field)
                (self.folder / name).write_bytes(b64decode(explanation[field]))
                explanation[field] = name
        return self.add_saved(replace(row, explanation=explanation))

    def add_saved(self, row: Row) -> Row:
        """Add a row whose PNGs an earlier run has saved; return the row."""
        if row.explanation is not None:
            self._rows.append(row)
        return row

    def holds(self, row: Row) -> bool:
        """Say whether the folder has the pictures of a row."""
        explanation = row.explanation or {}
        names = [explanation[field] for field in PICTURES if explanation.get(field)]
        return bool(names) and all((self.folder / name).is_file() for name in names)

    def write(self) -> Path:
        """Write the page and return its path.

        Raises:
            UsageError: The page cannot be written.
        """
        page = self.folder / SHEET_FILE
        text = HEAD + "\n".join(map(_article, sorted(self._rows, key=_doubt)))
        try:
            page.write_text(text, encoding="utf-8", errors="replace")  # a path may be no UTF-8
        except OSError as error:
            raise UsageError(f"cannot write {page}: {error.strerror}") from error
        return page


def _name_file(path: str, field: str) -> str:
    """Return the same name in each run, and another name for each image."""
    stem = re.sub(r"[^\w-]", "_", Path(path).stem)[:MAX_NAME_CHARACTERS]
    digest = sha256(os.fsencode(identify(Path(path)))).hexdigest()[:12]
    return f"{stem}-{digest}-{field}.png"


def _is_wrong(row: Row) -> bool:
    return row.label is not None and row.label != row.class_name


def _doubt(row: Row) -> tuple[bool, bool, float]:
    return not _is_wrong(row), row.in_distribution is not False, row.probability or 0.0


def _article(row: Row) -> str:
    explanation = row.explanation or {}
    file = Path(os.path.abspath(row.path)).as_uri()  # noqa: PTH100  keeps links
    sources = [file, *(quote(explanation[field]) for field in PICTURES if explanation.get(field))]
    images = "".join(f'<img loading="lazy" alt="" src="{html.escape(url)}">' for url in sources)
    lines = "<br>".join(html.escape(line) for line in _describe(row))
    kind = "wrong" if _is_wrong(row) else "other"
    return f'<article class="{kind}">{images}<p>{lines}</p></article>'


def _describe(row: Row) -> Iterator[str]:
    yield f"{row.class_name}, probability {row.probability:.3f} ({row.model})"
    if row.label is not None:
        yield f"true class: {row.label}"
    if row.in_distribution is False:
        yield "looks like none of the classes"
    if warnings := (row.explanation or {}).get("warnings"):
        yield f"warnings: {', '.join(warnings)}"
    yield row.path
