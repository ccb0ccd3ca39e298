"""Draw the README's picture: an upload, where the model looked, and a running service's answer.

make serve                                     # in one terminal
.venv/bin/python -m docs.picture               # in another: writes docs/picture.png
"""

from __future__ import annotations

import argparse
from base64 import b64decode
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from service.client import Client, Prediction

FOLDER = Path(__file__).parent
ITEM = FOLDER.parent / "tests" / "data" / "fashion-mnist-sample" / "0008_9.png"
EMPTY = 6  # highest pixel value of the background in Fashion-MNIST
PANEL_PIXELS, GAP_PIXELS, TITLE_PIXELS = 240, 60, 32
ANSWER_PIXELS, BAR_PIXELS = 300, 290
DARK, GREY, BLUE, TABLE = "#222222", "#888888", "#3b6ea8", "#b9c4c9"


def draw_upload(item: Image.Image) -> Image.Image:
    """Draw ``item``, a grey boot on black, as a photo of a brown boot on a table."""
    side, left, top = 360, 70, 60
    photo = Image.new("RGB", (side + 140, side + 140), TABLE)
    item = ImageOps.expand(item, border=2)  # the boot touches the edge of its image
    outline = item.point(lambda value: 255 * (value > EMPTY)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    shadow = outline.filter(ImageFilter.GaussianBlur(14)).point(lambda value: value * 0.4)
    photo.paste("black", (left + 14, top + 18), shadow)
    enlarged = ImageOps.invert(item).resize((side, side), Image.Resampling.BICUBIC)
    coloured = ImageOps.colorize(enlarged, black="#1d0f06", white="#d9b48f")
    photo.paste(coloured, (left, top), outline.filter(ImageFilter.GaussianBlur(4)))
    return photo


def draw_picture(upload: Image.Image, prediction: Prediction) -> Image.Image:
    """Draw ``upload``, where the model looked, and the three most likely classes side by side."""
    assert prediction.explanation is not None  # noqa: S101  main() asks for it
    seen = Image.open(BytesIO(b64decode(prediction.explanation["heat_map"])))
    step = PANEL_PIXELS + GAP_PIXELS
    size = 2 * step + ANSWER_PIXELS, TITLE_PIXELS + PANEL_PIXELS
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    titles = "upload", "where the model looked", "answer"
    for number, title in enumerate(titles):
        draw.text((number * step, 4), title, DARK, ImageFont.load_default(16))
    for number, panel in enumerate((upload, seen)):
        picture.paste(
            panel.convert("RGB").resize((PANEL_PIXELS, PANEL_PIXELS), Image.Resampling.LANCZOS),
            (number * step, TITLE_PIXELS),
        )
        _draw_arrow(draw, number * step + PANEL_PIXELS + 12, TITLE_PIXELS + PANEL_PIXELS // 2)
    best = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])[:3]
    for number, (name, probability) in enumerate(best):
        _draw_bar(draw, (2 * step, TITLE_PIXELS + 30 + 70 * number), name, probability)
    return picture


def _draw_arrow(draw: ImageDraw.ImageDraw, left: int, middle: int) -> None:
    draw.line((left, middle, left + 28, middle), GREY, 3)
    draw.polygon([(left + 26, middle - 8), (left + 38, middle), (left + 26, middle + 8)], GREY)


def _draw_bar(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, probability: float
) -> None:
    left, top = corner
    draw.text((left, top), f"{name}  {probability:.1%}", DARK, ImageFont.load_default(20))
    right = left + max(2, round(BAR_PIXELS * probability))
    draw.rectangle((left, top + 30, right, top + 42), BLUE)


def main() -> None:
    """Ask the service and write the picture."""
    parser = argparse.ArgumentParser(prog="python -m docs.picture", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service's base URL")
    parser.add_argument("--output", type=Path, default=FOLDER / "picture.png")
    arguments = parser.parse_args()
    upload = draw_upload(Image.open(ITEM))
    encoded = BytesIO()
    upload.save(encoded, "JPEG", quality=90)
    with Client(arguments.url) as client:
        picture = draw_picture(upload, client.predict(encoded.getvalue(), explain=True))
    picture.save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
