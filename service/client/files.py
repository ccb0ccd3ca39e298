"""Finds the image files that the command line's arguments name."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from service.client.errors import UsageError

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # web formats


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the files that the arguments (files, folders, globs) name, each file once.

    Folders are searched recursively for IMAGE_SUFFIXES.

    Raises:
        UsageError: An argument names no image.
    """
    return list(dict.fromkeys(image for argument in arguments for image in _find(argument)))


def _find(argument: str) -> list[Path]:
    # An existing path is not a glob, even if it looks like one (shoe[1].png).
    # Path.glob takes no absolute pattern, glob.glob does.
    exists = Path(argument).exists()
    matches = [argument] if exists else sorted(glob(argument, recursive=True))  # noqa: PTH207
    if not matches:
        raise UsageError(f"{argument} is not a file or folder, and as a glob it matches nothing")
    images = [image for match in matches for image in _list_images(Path(match))]
    if not images:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise UsageError(f"{argument} has no image file. Image files end in {suffixes}")
    return images


def _list_images(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]  # with any suffix: the server decides what is an image
    images = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    # Hidden files are skipped: macOS adds files such as ._boot.png, which are not images.
    return sorted(image for image in images if image.is_file() and not image.name.startswith("."))
