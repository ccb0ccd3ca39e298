"""The image files that a command line names."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from service.client.errors import UsageError

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # what browsers show


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the files that files, folders and globs name, each once.

    Folders are searched recursively for IMAGE_SUFFIXES.

    Raises:
        UsageError: An argument names no image.
    """
    return list(dict.fromkeys(image for argument in arguments for image in _find(argument)))


def _find(argument: str) -> list[Path]:
    # A file's own name may look like a glob, so existing files come first.
    # glob.glob, because Path.glob takes no absolute pattern.
    exists = Path(argument).exists()
    matches = [argument] if exists else sorted(glob(argument, recursive=True))  # noqa: PTH207
    if not matches:
        raise UsageError(f"{argument} is no file, no folder and matches nothing")
    images = [image for match in matches for image in _list_images(Path(match))]
    if not images:
        raise UsageError(f"{argument} has no {', '.join(IMAGE_SUFFIXES)} file")
    return images


def _list_images(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]  # whatever its suffix is: the server decides what is an image
    images = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    # macOS leaves hidden files such as ._boot.png.
    return sorted(image for image in images if image.is_file() and not image.name.startswith("."))
