"""The rows of an output file, one for each image, as CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from service.client.client import Prediction
from service.client.errors import ClientError, UsageError

MAX_ERROR_CHARACTERS = 500
# Keep the bytes of a path that is not UTF-8, and keep each line break as it is.
ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}


@dataclass(frozen=True)
class Row:
    """One image: its prediction or its error. None is an empty cell in CSV."""

    path: str
    class_id: int | None = None
    class_name: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] | None = None
    model: str | None = None
    error_type: str | None = None
    error_title: str | None = None
    error_detail: str | None = None
    request_id: str | None = None
    explanation: Mapping[str, Any] | None = None
    distance: float | None = None
    in_distribution: bool | None = None

    @classmethod
    def answered(cls, path: Path, prediction: Prediction) -> Self:
        """Return the row of an image that was classified."""
        cells = asdict(prediction)
        model = f"{cells.pop('model_name')}/{cells.pop('model_version')}"
        return cls(path=str(path), model=model, **cells)

    @classmethod
    def failed(cls, path: Path, error: ClientError) -> Self:
        """Return the row of an image that was not classified."""
        return cls(
            path=str(path),
            error_type=error.problem_type[:MAX_ERROR_CHARACTERS],
            error_title=error.title[:MAX_ERROR_CHARACTERS],
            error_detail=error.detail[:MAX_ERROR_CHARACTERS],
            request_id=error.request_id and error.request_id[:MAX_ERROR_CHARACTERS],
        )


COLUMNS = tuple(field.name for field in fields(Row))
JSON_COLUMNS = tuple(field.name for field in fields(Row) if field.type not in (str, str | None))


class RowFile:
    """An output file, CSV or JSON lines by its suffix, that grows row by row.

    Opening replaces the file's content with the ``kept`` rows in one step. Each row goes to the
    operating system at once: a killed run loses at most the row that it was writing.

    Raises:
        UsageError: The path has another suffix or cannot be written.
    """

    def __init__(self, path: Path, kept: Iterable[Row] = ()) -> None:
        self.path, self._is_csv = path, _is_csv(path)
        draft = path.with_name(path.name + ".draft")
        try:
            with draft.open("w", **ENCODING) as file:
                file.write(_csv_line(COLUMNS) if self._is_csv else "")
                file.writelines(map(self._line, kept))
            draft.replace(path)
            self._file = path.open("a", **ENCODING)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error

    def append(self, row: Row) -> None:
        """Write one row and hand it to the operating system."""
        self._file.write(self._line(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, row: Row) -> str:
        cells = asdict(row)
        if not self._is_csv:
            return json.dumps(cells) + "\n"
        texts = {name: json.dumps(cells[name]) for name in JSON_COLUMNS if cells[name] is not None}
        return _csv_line((cells | texts).values())


def _is_csv(path: Path) -> bool:
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"got the output {path}; it must end in .csv or .jsonl")
    return path.suffix == ".csv"


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Return the complete rows of an output file. A last row that a killed run cut is left out.

    Raises:
        UsageError: The file cannot be read or is not an output of this client.
    """
    try:
        with path.open(**ENCODING) as file:
            lines = file.readlines()
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        return list(_read_csv(lines) if _is_csv(path) else _read_json(lines))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, TypeError, ValueError) as error:
        message = f"{path} is not an output of this client and cannot be resumed: {error}"
        raise UsageError(message) from error


def _read_json(lines: Iterable[str]) -> Iterator[Row]:
    return (Row(**json.loads(line)) for line in lines)


def _read_csv(lines: Sequence[str]) -> Iterator[Row]:
    if lines and lines[0] != _csv_line(COLUMNS):
        raise ValueError(f"its first line is not {','.join(COLUMNS)}")
    reader = csv.reader(lines[1:], strict=True)
    try:
        for texts in reader:
            cells: dict[str, Any] = dict(zip(COLUMNS, texts, strict=True))
            cells = {name: text or None for name, text in cells.items()}
            cells |= {name: json.loads(cells[name]) for name in JSON_COLUMNS if cells[name]}
            yield Row(**cells)
    except csv.Error:
        if reader.line_num < len(lines) - 1:
            raise
        # An error at the end of the file is a row that was cut at a line break inside quotes.


def read_kept_rows(
    output: Path, images: Iterable[Path], *, resume: bool, overwrite: bool
) -> list[Row]:
    """Return the earlier run's rows to keep: all except the failed rows of ``images``.

    Raises:
        UsageError: The suffix is wrong, both flags are given, the file exists and no flag is given,
            or the file cannot be resumed.
    """
    if resume and overwrite:
        raise UsageError("got --resume and --overwrite; give only one of them")
    _is_csv(output)  # raises UsageError if the suffix is wrong
    if overwrite or not output.exists():
        return []
    if not resume:
        raise UsageError(f"{output} exists. Use --resume to continue it, --overwrite to replace it")
    asked = {str(image) for image in images}
    return [row for row in read_rows(output) if row.class_name is not None or row.path not in asked]
