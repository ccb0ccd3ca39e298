"""Small folders of photos and of worn garments, drawn by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.data.photos.table import is_validation

TAGS = ("null", "skin", "dress", "shoes", "belt", "skirt", "hair")
BACKGROUND, SKIN, DRESS, SHOES, BELT, SKIRT, HAIR = range(len(TAGS))
# The colours of the parts of a person: the dress is red, the shoes are green.
COLOURS = ("#404080", "#4060a0", "#ff0000", "#00ff00", "#0000ff", "#202020", "#101060")
PARTS = {
    HAIR: (70, 2, 130, 30),
    SKIN: (80, 30, 120, 50),
    DRESS: (60, 50, 140, 200),
    BELT: (60, 110, 140, 120),
    SHOES: (70, 240, 130, 280),
}
WORN_SIZE = (200, 300)
HEAD = "file,class_id,tier,source\n"


def choose_names(count: int, *, validation: bool) -> list[str]:
    """Choose names of JPEG files that belong to validation, or that belong to training."""
    names = (f"photo-{number}.jpg" for number in range(40 * count))
    return [name for name in names if is_validation(name) == validation][:count]


def write_photo(folder: Path, name: str, colour: str = "red") -> None:
    """Write a JPEG of one colour, 60 x 40 pixels."""
    Image.new("RGB", (60, 40), colour).save(folder / name, quality=95)


def write_worn_folder(folder: Path, *, training: int = 2, validation: int = 1) -> Path:
    """Write photos of a drawn person with masks, and of training one more without a mask."""
    (folder / "masks").mkdir(parents=True)
    names = choose_names(training, validation=False) + choose_names(validation, validation=True)
    unmasked = choose_names(training + 1, validation=False)[-1]
    draw_person()[0].save(folder / unmasked, quality=95)
    rows = [f"{unmasked},,dress|shoes|scarf\n"]
    for name in names:
        mask_name = f"masks/{Path(name).stem}.png"
        photo, mask = draw_person()
        photo.save(folder / name, quality=95)
        mask.save(folder / mask_name)
        rows.append(f"{name},{mask_name},dress|shoes\n")
    (folder / "labels.csv").write_text(f"file,mask,tags\n{''.join(rows)}")
    (folder / "tags.txt").write_text("".join(f"{n} {tag}\n" for n, tag in enumerate(TAGS)))
    return folder


def draw_person() -> tuple[Image.Image, Image.Image]:
    """Draw a person in a dress, and the palette mask of the parts."""
    photo, mask = Image.new("RGB", WORN_SIZE, COLOURS[0]), Image.new("P", WORN_SIZE, BACKGROUND)
    mask.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    for tag, box in PARTS.items():
        left, top, right, bottom = box
        ImageDraw.Draw(photo).rectangle((left, top, right - 1, bottom - 1), COLOURS[tag])
        ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), tag)
    return photo, mask


def share_of_garment(picture: Image.Image) -> float:
    """Return the share of pixels in the colour of the dress or of the shoes."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    distances = [abs(pixels - colour).max(axis=2) for colour in ((255, 0, 0), (0, 255, 0))]
    return float((np.minimum(*distances) < 40).mean())
