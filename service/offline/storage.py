"""Files on disk, in S3 and in Google Cloud Storage, named by paths and URLs."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from io import TextIOWrapper
from pathlib import Path

from pyarrow import fs

from service.errors import SourceError

SCHEMES = ("s3", "gs")
WILDCARDS = frozenset("*?[")


def normalise(name: str) -> str:
    """Return the name of a file or folder that is the same in every folder and on every machine."""
    return name.rstrip("/") if "://" in name else str(Path(name).absolute())


class Storage:
    """Opens files by path or URL (``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``).

    Each bucket is opened once: opening one asks the cloud for credentials and a region.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, fs.FileSystem] = {}

    def locate(self, name: str) -> tuple[fs.FileSystem, str]:
        """Return the file system that holds a file, and the file's path there.

        Raises:
            SourceError: The URL has an unknown scheme, or the bucket cannot be opened.
        """
        scheme, separator, path = name.partition("://")
        if not separator:
            return fs.LocalFileSystem(), str(Path(name).absolute())
        if scheme not in SCHEMES:
            raise SourceError(f"{name}: {scheme}:// is not known; name a path, s3:// or gs://")
        bucket = f"{scheme}://{path.partition('/')[0]}"
        if bucket not in self._buckets:
            try:
                self._buckets[bucket], _ = fs.FileSystem.from_uri(bucket)
            except (OSError, ValueError) as error:
                raise SourceError(f"{bucket} cannot be opened: {error}") from error
        return self._buckets[bucket], path.rstrip("/")

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read at most ``max_bytes`` of a file.

        Raises:
            OSError: The file cannot be read.
        """
        system, path = self.locate(name)
        with system.open_input_stream(path) as file:
            return bytes(file.read(max_bytes))

    def read_lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a text file, without empty ones.

        Raises:
            SourceError: The file is not in UTF-8.
            OSError: The file cannot be read.
        """
        system, path = self.locate(name)
        with TextIOWrapper(system.open_input_stream(path), encoding="utf-8-sig") as lines:
            try:
                yield from filter(None, map(str.strip, lines))
            except UnicodeDecodeError as error:
                raise SourceError(f"{name} is not text in UTF-8: {error}") from error

    def find(self, source: str) -> Iterator[str]:
        """Yield a file, the files of a folder and its sub-folders, or those that match a pattern.

        In a pattern, ``*`` matches no slash, ``**/`` any number of folders, also none, and ``**``
        anything. Hidden files are left out. The order is always the same. Only the names of one
        folder and of those above it are in memory.

        Raises:
            SourceError: See ``locate``.
            OSError: A folder cannot be read.
        """
        system, path = self.locate(source)
        scheme, separator, _ = source.rpartition("://")
        is_pattern = system.get_file_info(path).type == fs.FileType.NotFound
        top = _fixed_part(path) if is_pattern else path
        for file in _walk(system, top):
            if not is_pattern or _matches(file.split("/"), path.split("/")):
                yield scheme + separator + file


def _fixed_part(pattern: str) -> str:
    """Return the folders of a pattern above the first wildcard."""
    parts = pattern.split("/")
    fixed = next((n for n, part in enumerate(parts) if WILDCARDS & set(part)), len(parts))
    return "/".join(parts[:fixed])


def _matches(parts: list[str], patterns: list[str]) -> bool:
    if not parts or not patterns:
        return parts == patterns
    first, *rest = patterns
    if first == "**" and rest:
        return _matches(parts, rest) or _matches(parts[1:], patterns)
    if "**" in first:
        return fnmatchcase("/".join(parts), "/".join(patterns))
    return fnmatchcase(parts[0], first) and _matches(parts[1:], rest)


def _walk(system: fs.FileSystem, path: str) -> Iterator[str]:
    if system.get_file_info(path).type == fs.FileType.File:
        yield path
        return
    entries = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    for entry in sorted(entries, key=lambda each: str(each.path)):
        if entry.base_name.startswith("."):
            continue
        if entry.type == fs.FileType.Directory:
            yield from _walk(system, entry.path)
        elif entry.type == fs.FileType.File:
            yield entry.path
