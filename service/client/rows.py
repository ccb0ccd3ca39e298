"""The rows of an output file, one for each image, as CSV or JSON lines."""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from service.client.answers import Prediction
from service.client.errors import ClientError, UsageError
from service.client.files import identify
from service.client.labels import match_class

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
    label: str | None = None
    """The true class, if the image's folder is named after one."""

    @classmethod
    def answered(cls, path: Path, prediction: Prediction) -> Self:
        """Return the row of an image that was classified."""
        cells = asdict(prediction)
        model = f"{cells.pop('model_name')}/{cells.pop('model_version')}"
        del cells["prediction_set"]  # the command line does not ask for one
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

    def labelled(self) -> Self:
        """Return the row with the class that the image's folder is named after, if any."""
        folder = Path(os.path.abspath(self.path)).parent.name  # noqa: PTH100  resolves "../"
        return replace(self, label=match_class(folder, list(self.probabilities or {})))


COLUMNS = tuple(field.name for field in fields(Row))
JSON_COLUMNS = tuple(field.name for field in fields(Row) if field.type not in (str, str | None))
# Earlier versions of this client did not write these columns.
ADDED_COLUMNS = {"label"}
INDEX_COLUMNS = {"", "Unnamed: 0"}  # pandas adds one


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
        """Close the file. Its rows are written already, or ``append`` has raised the error."""
        with suppress(OSError):
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
        lines = _read_lines(path)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        return list(_read_csv(lines) if _is_csv(path) else _read_json(lines))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, TypeError, ValueError) as error:
        message = f"{path} is not an output of this client and cannot be resumed: {error}"
        raise UsageError(message) from error


def _read_lines(path: Path) -> list[str]:
    """Return the lines with their ends, in UTF-8, or in UTF-16 as spreadsheets' "Unicode text"."""
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16") if is_utf16 else content.decode("utf-8", "surrogateescape")
    return list(io.StringIO(text.removeprefix("\ufeff"), newline="\n"))


def _read_json(lines: Iterable[str]) -> Iterator[Row]:
    return (Row(**json.loads(line)) for line in lines)


def _read_csv(lines: Sequence[str]) -> Iterator[Row]:
    """Read rows, also if Excel or pandas has saved the file in between.

    These programs change line ends, the delimiter, and how numbers and truth values are written.
    """
    head = lines[0].rstrip("\r\n") if lines else ",".join(COLUMNS)
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    names = next(csv.reader([head], delimiter=delimiter))
    _check_columns(names)
    reader = csv.reader(lines[1:], delimiter=delimiter, strict=True)
    try:
        for texts in reader:
            if any(texts):
                yield _parse_row(dict(zip(names, texts, strict=True)))
    except csv.Error:
        if reader.line_num < len(lines) - 1:
            raise
        # An error at the end of the file is a row that was cut at a line break inside quotes.


def _check_columns(names: Sequence[str]) -> None:
    lacking = set(COLUMNS) - set(names) - ADDED_COLUMNS
    unknown = set(names) - set(COLUMNS) - INDEX_COLUMNS
    if lacking or unknown:  # an unknown column would be lost
        raise ValueError(f"its first line is not {','.join(COLUMNS)}")


def _parse_row(texts: Mapping[str, str]) -> Row:
    cells: dict[str, Any] = {name: texts.get(name) or None for name in COLUMNS}
    for name in JSON_COLUMNS:
        if cells[name] is not None:
            cells[name] = _parse_cell(cells[name])
    if cells["class_id"] is not None:
        cells["class_id"] = int(cells["class_id"])  # pandas writes 9.0
    return Row(**cells)


def _parse_cell(text: str) -> Any:
    if text.lower() in ("true", "false"):  # pandas writes True, Excel TRUE
        return text.lower() == "true"
    try:
        return json.loads(text)
    except ValueError:
        return float(text.replace(",", "."))  # Excel writes 0,75 in many countries


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
    asked = {identify(image) for image in images}
    return [
        row
        for row in read_rows(output)
        if row.class_name is not None or identify(Path(row.path)) not in asked
    ]
