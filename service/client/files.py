"""Finds the image files that the command line's arguments name."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path

from service.client.errors import UsageError

# The web's formats, with every suffix that browsers know for them.
IMAGE_SUFFIXES = (
    ".apng",
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pjp",
    ".pjpeg",
    ".png",
    ".webp",
)


@dataclass(frozen=True)
class FoundFiles:
    """The image files, and how many other files of the folders were passed over, by suffix."""

    images: list[Path]
    passed_over: Counter[str]

    def describe_passed_over(self) -> str:
        """Return a line with the counts, or an empty text if no file was passed over."""
        counts = ", ".join(f"{count} x {kind}" for kind, count in self.passed_over.most_common())
        total = self.passed_over.total()
        return f"{total} other files in the folders were passed over: {counts}" if total else ""


def find_images(arguments: Sequence[str], left_out: Path | None = None) -> FoundFiles:
    """Return the files that the arguments (files, folders, globs) name, each file once.

    Folders are searched recursively for IMAGE_SUFFIXES, but the folder ``left_out`` is not. Hidden
    files are passed over: macOS adds files such as ._boot.png, which are not images.

    Raises:
        UsageError: An argument names no image, or a folder cannot be read.
    """
    images: dict[str, Path] = {}
    passed_over: Counter[str] = Counter()
    for argument in arguments:
        found = _find(argument, left_out)
        for image in found.images:
            images.setdefault(identify(image), image)
        passed_over += found.passed_over
    return FoundFiles(list(images.values()), passed_over)


def _find(argument: str, left_out: Path | None) -> FoundFiles:
    matches = _match(argument)
    if not matches:
        raise UsageError(f"{argument} is not a file or folder, and as a glob it matches nothing")
    found = FoundFiles([], Counter())
    for match in matches:
        _add_images(match, found, left_out)
    if not found.images:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        message = f"{argument} has no image file. Image files end in {suffixes}"
        raise UsageError(". ".join(filter(None, [message, found.describe_passed_over()])))
    return found


def _add_images(path: Path, found: FoundFiles, left_out: Path | None) -> None:
    if not path.is_dir():
        found.images.append(path)  # with any suffix: the server decides what is an image
        return
    for file in sorted(_walk(path, left_out)):
        kind = "hidden" if file.name.startswith(".") else file.suffix.lower() or "no suffix"
        if kind in IMAGE_SUFFIXES:
            found.images.append(file)
        else:
            found.passed_over[kind] += 1


def identify(path: Path) -> str:
    """Return the same text for each spelling of a file's path.

    A link to a file is a file of its own, because it may lie in the folder of another class.
    """
    folder = os.path.join(os.getcwd(), path.parent)  # noqa: PTH109, PTH118  much faster
    return os.path.join(_real_folder(folder), path.name)  # noqa: PTH118


@cache
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _match(argument: str) -> list[Path]:
    # An existing path is not a glob, even if it looks like one (shoe[1].png).
    # Path.glob takes no absolute pattern, glob.glob does.
    try:
        if Path(argument).exists():
            return [Path(argument)]
    except OSError as error:
        raise UsageError(f"{argument} cannot be read: {error.strerror}") from error
    return [Path(match) for match in sorted(glob(argument, recursive=True))]  # noqa: PTH207


def _walk(folder: Path, left_out: Path | None) -> Iterator[Path]:
    """Yield all files below ``folder``, except those below the folder ``left_out``."""

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be searched: {error.strerror}") from error

    closed = None if left_out is None else os.path.realpath(left_out)
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if os.path.realpath(Path(parent, name)) != closed]
        yield from (path for name in names if (path := Path(parent, name)).is_file())
