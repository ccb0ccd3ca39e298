"""What Chromium shows, compared with what is read; skipped where there is no Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import UnreadableImageError
from service.imaging import read_picture
from tests.service.images import FAULTS

CHROMIUM = shutil.which("chromium")
WHOLE, BROKEN = (sorted((FAULTS / name).iterdir()) for name in ("whole", "broken"))
WHOLE += [FAULTS / "progressive.avif", FAULTS / "rotated.avif", FAULTS / "exif-rotated.jpg"]
PAGE = """<body>%s<script>onload = () => {
  const shown = [...document.images].map(image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    if (!image.naturalWidth) return null;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return [canvas.height, canvas.width, Array.from(pixels)];
  });
  document.body.textContent = JSON.stringify(shown);
}</script>"""

Shown = dict[Path, NDArray[np.uint8] | None]
"""By file: what a canvas shows, uint8 ``[height, width, 4]``, or None if it shows nothing."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Show every file in Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    files, folder = [*WHOLE, *BROKEN], tmp_path_factory.mktemp("browser")
    page = folder / "page.html"
    urls = (b64encode(file.read_bytes()).decode() for file in files)
    page.write_text(PAGE % "".join(f'<img src="data:image/x;base64,{url}">' for url in urls))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
    command = [CHROMIUM, *options, f"--user-data-dir={folder}", "--dump-dom", str(page)]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    body = re.search("<body>(.*)</body>", dom, re.DOTALL)
    assert body is not None
    entries = json.loads(html.unescape(body[1]))
    return {
        file: None if entry is None else np.array(entry[2], np.uint8).reshape(*entry[:2], 4)
        for file, entry in zip(files, entries, strict=True)
    }


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.name)
def test_file_that_chromium_shows_whole_is_read_alike(file: Path, shown: Shown) -> None:
    """The picture has Chromium's size, turn and pixels."""
    expected = shown[file]
    assert expected is not None
    assert (expected[..., 3] == 255).all()
    seen = np.asarray(read_picture(file.read_bytes(), 1_000_000).image.convert("RGB"))
    assert seen.shape == (*expected.shape[:2], 3)
    np.testing.assert_allclose(seen.astype(int), expected[..., :3], atol=3)


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.name)
def test_file_that_chromium_does_not_show_whole_is_rejected(file: Path, shown: Shown) -> None:
    """Chromium shows nothing or leaves rows empty, and the error names the format."""
    picture = shown[file]
    assert picture is None or (picture[..., 3] == 0).any()
    kind = {".jpg": "JPEG"}.get(file.suffix, file.suffix[1:].upper())
    with pytest.raises(UnreadableImageError, match=f"^the {kind} image "):
        read_picture(file.read_bytes(), 1_000_000)
