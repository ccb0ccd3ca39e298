"""Draw the README's picture: the page at `/` in a browser, with an answer.

make serve                                     # in one terminal
.venv/bin/python -m docs.page                  # in another: writes docs/page.png
.venv/bin/python -m docs.page --samples        # draws the page's samples from docs/samples/*.svg
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
SAMPLES = FOLDER.parent / "service" / "api" / "page" / "files"
SAMPLE_PIXELS, SAMPLE_QUALITY = 200, 75
COLOURS = 256  # of the screenshot: with a palette the file is small
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser(*flags: str) -> Iterator[Browser]:
    """Run Debian's Chromium with an empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*FLAGS, *flags]
        )
        yield browser
        browser.close()


def draw_page(page: Page, url: str) -> bytes:
    """Return a screenshot, as PNG, of the page's answer to one of its samples."""
    page.goto(url)
    page.get_by_role("link", name="garments").wait_for()
    page.get_by_role("button", name="Drawing of a sneaker").click()
    page.get_by_text("One of the 10 classes", exact=True).wait_for()
    page.wait_for_load_state("networkidle")
    return page.screenshot(full_page=True)


def draw_sample(page: Page, drawing: Path) -> Image.Image:
    """Return a drawing as a picture of ``SAMPLE_PIXELS`` a side."""
    style = "<style>body{margin:0}svg{display:block}</style>"
    page.set_content(style + drawing.read_text(encoding="utf-8"))
    return Image.open(BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    """Write the picture or the samples."""
    parser = argparse.ArgumentParser(prog="python -m docs.page", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service's base URL")
    parser.add_argument("--output", type=Path, default=FOLDER / "page.png")
    parser.add_argument("--samples", action="store_true", help="draw the samples instead")
    arguments = parser.parse_args()
    with open_browser() as browser:
        if arguments.samples:
            side = SAMPLE_PIXELS
            page = browser.new_page(viewport={"width": side, "height": side})
            for drawing in sorted(FOLDER.glob("samples/*.svg")):
                output = SAMPLES / f"{drawing.stem}.jpg"
                draw_sample(page, drawing).save(output, quality=SAMPLE_QUALITY, optimize=True)
            return
        page = browser.new_page(viewport={"width": 1120, "height": 700})
        picture = Image.open(BytesIO(draw_page(page, arguments.url))).convert("RGB")
    # Only with a given palette does Pillow dither, and the heat map needs it.
    palette = picture.quantize(COLOURS)
    picture.quantize(palette=palette).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
