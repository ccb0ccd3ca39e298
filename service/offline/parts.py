"""The images of a source in parts: row groups of Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

import pyarrow as pa
from pyarrow import fs, parquet

from service.errors import SourceError
from service.offline.storage import Storage

# The part that a killed worker was classifying is classified again, from its beginning.
IMAGES_PER_PART = 1_000
# Programs that read a folder of Parquet files pass over names that begin with an underscore.
HIDDEN = "_"


@dataclass(frozen=True)
class Part:
    """A row group of a Parquet file of images, and the file for the answers to them."""

    images: str
    row_group: int
    answers: str


def find_parts(storage: Storage, source: str, output: str) -> list[Part]:
    """Return the parts of ``source`` that have no answers in the folder ``output`` yet.

    Both are names as ``normalise`` returns them. ``source`` is a folder or a pattern of images, a
    text file (``.txt``) with a path or URL on each line, or Parquet files with the column ``path``
    and, if they hold the images, ``bytes``. The first run writes the paths of all images into
    ``output``; later runs read them there.

    Raises:
        SourceError: No image is found, or a Parquet file is damaged or has no column ``path``.
        OSError: A file or folder cannot be read or written.
    """
    done = set(_list_names(storage, output))
    parts = []
    for table in _find_tables(storage, source, output):
        system, path = storage.locate(table)
        try:
            with parquet.ParquetFile(path, filesystem=system) as file:
                names, row_groups = file.schema_arrow.names, file.num_row_groups
        except pa.ArrowInvalid as error:
            raise SourceError(f"{table} is no complete Parquet file: {error}") from error
        if "path" not in names:
            raise SourceError(f"{table} has no column named path; it needs one")
        for row_group in range(row_groups):
            name = f"{_identify(table)}-{row_group:06}.parquet"
            if name not in done:
                parts.append(Part(table, row_group, f"{output}/{name}"))
    return parts


@contextmanager
def writing(storage: Storage, name: str, schema: pa.Schema) -> Iterator[parquet.ParquetWriter]:
    """Write a Parquet file that appears when it is complete."""
    system, path = storage.locate(name)
    folder, _, base = path.rpartition("/")
    if isinstance(system, fs.LocalFileSystem):
        system.create_dir(folder)
    unfinished = f"{folder}/{HIDDEN}unfinished-{base}"
    with parquet.ParquetWriter(unfinished, schema, filesystem=system) as writer:
        yield writer
    system.move(unfinished, path)


def _find_tables(storage: Storage, source: str, output: str) -> Iterable[str]:
    """Return the Parquet files of a source; write one with its paths if it has none."""
    table = f"{output}/{HIDDEN}images-{_identify(source)}.parquet"
    system, path = storage.locate(table)
    if system.get_file_info(path).type == fs.FileType.File:
        return [table]
    if source.endswith(".txt"):
        files = storage.read_lines(source)
    else:
        files = _skip_marks(storage.find(source), output)
    first = next(iter(files), None)
    if first is None:
        raise SourceError(f"{source}: no file is found; name a folder, a pattern or a list")
    files = chain([first], files)
    if first.endswith(".parquet"):
        return files
    schema = pa.schema({"path": pa.string()})
    with writing(storage, table, schema) as writer:
        while paths := list(islice(files, IMAGES_PER_PART)):
            writer.write_table(pa.table({"path": paths}, schema))
    return [table]


def _skip_marks(files: Iterable[str], output: str) -> Iterator[str]:
    """Leave out answers, and the files with which Spark marks a folder, such as _SUCCESS."""
    for file in files:
        base = file.rpartition("/")[2]
        is_mark = base.startswith("_") and ("." not in base or base.endswith(".parquet"))
        if not is_mark and not file.startswith(f"{output}/"):
            yield file


def _list_names(storage: Storage, folder: str) -> Iterator[str]:
    system, path = storage.locate(folder)
    for entry in system.get_file_info(fs.FileSelector(path, allow_not_found=True)):
        yield entry.base_name


def _identify(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]
