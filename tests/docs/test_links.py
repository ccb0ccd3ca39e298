"""The pages, headings, files and variables that documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings
from tests.e2e.server import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = "service", "training", "models", "tests", "docs", "docker", "deploy", "requirements"
# Commands write these pages. They name old runs and bundles, which may be gone.
GENERATED = {"results.md", "photos.md", "variants.md", "performance.md", "reliability.md"}
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
# Bundles that were removed, and one that the reader makes.
ABSENT = {"models/resnet-8/1", "models/resnet-8-tiny/1", "models/mine/1"}


def name_of(page: Path) -> str:
    """Name a page by its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to an existing file and, if it has an anchor, to a heading."""
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not heading or heading in slugs(target), link


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_files_exist(page: Path) -> None:
    """Every path of the repository that the page has in backticks exists."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)
    real = [name for name in named if "NAME" not in name and name not in ABSENT]
    assert [name for name in real if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_settings_exist(page: Path) -> None:
    """Every variable SERVICE_... that the page names is a setting."""
    named = set(re.findall(r"(?<![A-Z_])SERVICE_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
    assert named <= {f"SERVICE_{name.upper()}" for name in Settings.model_fields}
