"""The README: short, and true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from service.app import create_app
from service.bundle import read_bundle
from service.settings import Settings
from tests.docs.page import (
    BASE_URL,
    Example,
    differences,
    find_blocks,
    find_code,
    find_examples,
    find_table,
    read_page,
)
from tests.e2e.server import ROOT, Server

README = read_page("README.md")
MAX_WORDS = 700
BULLETS = re.findall(r"^- (\*\*.*?)(?=^- |^$)", README, re.DOTALL | re.MULTILINE)


def test_readme_is_short() -> None:
    """The README has at most 700 words, counted as `wc -w` does."""
    assert len(README.split()) <= MAX_WORDS


@pytest.mark.parametrize("example", find_examples("README.md"), ids=lambda e: e.command)
def test_curl_shows_what_the_readme_shows(server: Server, example: Example) -> None:
    """The README's command gets the answer that the README shows below it."""
    assert differences(example.answer, example.run(server.url)) == []


def test_python_example_works(server: Server) -> None:
    """The README's Python example names the garment of the README's first example."""
    (code,) = find_blocks(README, "python")
    command = [sys.executable, "-c", code.replace(BASE_URL, server.url)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout == find_examples("README.md")[0].answer["class_name"] + "\n"


@pytest.mark.parametrize("row", find_table(README, "model"), ids=lambda row: row[0])
def test_accuracy_is_the_measured_one(row: list[str]) -> None:
    """Each row of the accuracy table has the figures of the model's manifest."""
    manifest = read_bundle(ROOT / "models" / row[0].strip("`")).manifest
    test = manifest.metrics["test"]
    low, high = test["wilson_95"]
    parameters = f"{manifest.training['parameters']:,}"
    measured = [f"{test['accuracy']:.2%}", f"{low:.2%} to {high:.2%}", parameters]
    assert row[1:4] == measured


@pytest.mark.parametrize("bullet", BULLETS, ids=lambda bullet: re.sub(r"\W.*", "", bullet[2:]))
def test_figures_are_on_the_linked_page(bullet: str) -> None:
    """Every figure of two digits or more in a bullet is on a page that the bullet links to."""
    text, links = re.sub(r"\]\([^)]*\)", "", bullet), re.findall(r"\]\(([^)]+)\)", bullet)
    sources = "".join(map(read_page, links)).replace(",", "")
    figures = re.findall(r"\d[\d.]*\d", text.replace(",", ""))
    assert figures
    unknown = [
        f for f in figures if not re.search(rf"(?<![\d.]){re.escape(f)}(?![\d.]*\d)", sources)
    ]
    assert unknown == []


def test_endpoints_are_those_of_the_service() -> None:
    """The table of endpoints has every path of the service, and one path below /v2."""
    cells = [find_code(row[0]) for row in find_table(README, "path")]
    shown = {words.split()[-1] for cell in cells for words in cell}
    paths = create_app(Settings()).openapi()["paths"]
    documented = {path for path in paths if not path.startswith("/v2")}
    assert shown == {*documented, "/v2/models/{name}/infer", "/", "/docs", "/openapi.json"}
    assert "/v2/models/{name}/infer" in paths


def test_picture_can_be_drawn(server: Server, tmp_path: Path) -> None:
    """`python -m docs.page` draws the page, and the README's picture is such a small file."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    output = tmp_path / "page.png"
    command = [sys.executable, "-m", "docs.page", "--url", server.url, "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True)
    shown = ROOT / "docs" / "page.png"
    assert shown.stat().st_size < 150_000
    with Image.open(output) as drawn, Image.open(shown) as kept:
        assert drawn.width == kept.width
