"""Own the client of the service: a class to call it, sync and async, and a command line for many images.

Knows the HTTP contract alone and imports nothing else of ``service``, so it runs where no model and no server is.

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict("boot.png").class_name)

    python -m service.client photos/ 'more/**/*.png' --url http://127.0.0.1:8000 --output results.csv

ClientError
├── UnreadableFileError     an image file cannot be read here
├── NoAnswerError           the connection broke or timed out, through every retry
│   └── UnreachableError    no connection could be made at all
├── UnexpectedAnswerError   a 200 that does not follow the HTTP contract: the URL is probably another service's
├── ProblemError            the server answered with an error; carries its RFC 9457 body
└── UsageError              the command line names something that cannot be used
"""

import asyncio
import csv
import glob
import io
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Self

try:
    import httpx
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.table import Column, Table
    from rich.text import Text
except ModuleNotFoundError as error:
    _message = f"the client needs {error.name}, which is not installed: pip install 'fashion-classifier[client]'"
    raise (SystemExit if __name__ == "__main__" else ModuleNotFoundError)(_message) from error

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
RETRIED_STATUSES = frozenset(
    {429, 502, 503, 504}
)  # overloaded, restarting or too slow: another attempt may succeed
MAX_CONNECTIONS = 100
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = (
    300.0  # a server that asks for more is not waited for, and never asked sooner
)


class ClientError(Exception):
    """Base of every error that the client raises on purpose."""

    problem_type = "client:error"
    title = "Client error"
    request_id: str | None = None

    @property
    def detail(self) -> str:
        """What happened, on one line."""
        return " ".join(str(self).split())


class UnreadableFileError(ClientError):
    """An image file cannot be read here."""

    problem_type, title = "client:unreadable-file", "Unreadable file"


class NoAnswerError(ClientError):
    """The connection broke or timed out, through every retry."""

    problem_type, title = "client:no-answer", "No answer"


class UnreachableError(NoAnswerError):
    """No connection could be made at all, through every retry."""

    problem_type, title = "client:unreachable", "Server unreachable"


class UnexpectedAnswerError(ClientError):
    """A 200 does not follow the HTTP contract."""

    problem_type, title = "client:unexpected-answer", "Unexpected answer"


class UsageError(ClientError):
    """The command line names something that cannot be used."""


class ProblemError(ClientError):
    """The server answered with an error: ``status`` is its HTTP status, ``problem`` its RFC 9457 body."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.status, self.problem = status, problem
        self.problem_type, self.title = str(problem["type"]), str(problem["title"])
        self.request_id = str(problem["request_id"]) if "request_id" in problem else None


@dataclass(frozen=True)
class Prediction:
    """The service's answer for one image; probabilities lie in [0, 1] and keep the model's label order.

    ``explanation``, where it was asked for, is what the model saw, as the service's documentation describes it.
    ``distance`` from the classes, and whether it is one that their images have, are None where the model does not tell.
    """

    class_id: int
    class_name: str
    probability: float
    probabilities: Mapping[str, float]
    model_name: str
    model_version: str
    explanation: Mapping[str, Any] | None = None
    distance: float | None = None
    in_distribution: bool | None = None


@dataclass(eq=False)
class _Caller:
    """What Client and AsyncClient share: the request to send and the verdict on what came back; does no I/O."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    retries: int = 5
    backoff_s: float = 0.5
    explain: bool = False

    @property
    def _options(self) -> dict[str, Any]:
        try:
            url = httpx.URL(self.url.rstrip("/").removesuffix("/predict"))
        except httpx.InvalidURL as error:
            raise UsageError(f"{self.url!r} is not a URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError(
                f"the URL must look like http://HOST:PORT or https://HOST, got {self.url!r}"
            )
        return {
            "base_url": url,
            "headers": {"Content-Type": "application/octet-stream", "Accept": "application/json"}
            | ({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}),
            "timeout": httpx.Timeout(
                self.timeout_s, pool=None
            ),  # waiting for one's turn is no failure
            "limits": httpx.Limits(max_connections=MAX_CONNECTIONS),
            "params": {"explain": "true"} if self.explain else {},
        }

    def _judge(
        self, outcome: httpx.Response | httpx.RequestError, attempt: int
    ) -> Prediction | float:
        """Return the prediction, or the seconds to pause before the next attempt, or raise."""
        if isinstance(outcome, httpx.Response) and outcome.status_code == 200:
            return _parse_prediction(outcome)
        error = _parse_error(outcome)
        retried = not isinstance(error, ProblemError) or error.status in RETRIED_STATUSES
        asked_s = _parse_retry_after_s(outcome) if isinstance(outcome, httpx.Response) else None
        if not retried or attempt >= self.retries or (asked_s or 0.0) > LONGEST_RETRY_AFTER_S:
            raise error
        jitter = random.random()  # noqa: S311 - spreads the clients out; no secret
        if asked_s is not None:
            return asked_s + jitter * self.backoff_s
        return min(LONGEST_BACKOFF_S, self.backoff_s * 2.0**attempt) * (0.5 + jitter / 2)


def _parse_prediction(response: httpx.Response) -> Prediction:
    try:
        body = response.json()
        probabilities = {str(name): float(value) for name, value in body["probabilities"].items()}
        head = int(body["class_id"]), str(body["class_name"]), float(body["probability"])
        model = str(body["model"]["name"]), str(body["model"]["version"])
        extras = {name: body.get(name) for name in ("explanation", "distance", "in_distribution")}
        return Prediction(*head, probabilities, *model, **extras)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswerError(
            f"{response.url} answered 200 with no prediction: {response.text[:200]}"
        ) from error


def _parse_error(outcome: httpx.Response | httpx.RequestError) -> ClientError:
    if isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout):
        return UnreachableError(
            f"cannot connect to {outcome.request.url}: {outcome or type(outcome).__name__}"
        )
    if isinstance(outcome, httpx.RequestError):
        return NoAnswerError(
            f"{outcome.request.url} gave no answer: {type(outcome).__name__} {outcome}"
        )
    title = f"HTTP {outcome.status_code} {outcome.reason_phrase}"
    problem = {
        "type": "about:blank",
        "title": title,
        "detail": outcome.text[:200],
    }  # such as a proxy's own page
    with suppress(TypeError, ValueError):  # no JSON object: the text is all there is
        problem |= outcome.json()
    return ProblemError(outcome.status_code, problem)


def _parse_retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds to wait that Retry-After asks for, as a number or an HTTP date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(
        0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    )


def _read_image(image: Path | str | bytes) -> bytes:
    try:
        return image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"cannot read {image!s}: {error.strerror or error}") from error


@dataclass(eq=False)
class Client(_Caller):
    """Call the service from threads: ``Client(url, api_key=None, timeout_s=30, retries=5, backoff_s=0.5)``.

    A failed connection and a 429, 502, 503 or 504 are tried again up to ``retries`` times, after the seconds that
    Retry-After asks for, else after ``backoff_s`` seconds doubled with each attempt, with jitter. With ``explain=True``
    predictions tell what the model saw.

    Raises:
        UsageError: The URL is not one of http or https.
    """

    def __post_init__(self) -> None:
        self._http = httpx.Client(**self._options)

    def predict(self, image: Path | str | bytes) -> Prediction:
        """Classify one image, given as a path or as the bytes of its file.

        Raises:
            UnreadableFileError: The file cannot be read.
            NoAnswerError: No answer came, through every retry.
            ProblemError: The server refused the image or failed.
            UnexpectedAnswerError: What answered is not this service.
        """
        content, attempt = _read_image(image), 0
        while True:
            try:
                outcome: httpx.Response | httpx.RequestError = self._http.post(
                    "/predict", content=content
                )
            except httpx.RequestError as error:
                outcome = error
            verdict = self._judge(outcome, attempt)
            if isinstance(verdict, Prediction):
                return verdict
            time.sleep(verdict)
            attempt += 1

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(eq=False)
class AsyncClient(_Caller):
    """Call the service from asyncio: the same arguments, pauses and errors as Client."""

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(**self._options)

    async def predict(self, image: Path | str | bytes) -> Prediction:
        """Classify one image as ``Client.predict`` does, with the same ``Raises``."""
        content, attempt = await asyncio.to_thread(_read_image, image), 0
        while True:
            try:
                outcome: httpx.Response | httpx.RequestError = await self._http.post(
                    "/predict", content=content
                )
            except httpx.RequestError as error:
                outcome = error
            verdict = self._judge(outcome, attempt)
            if isinstance(verdict, Prediction):
                return verdict
            await asyncio.sleep(verdict)
            attempt += 1

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass(frozen=True)
class Row:
    """One image in an output file: its prediction, or the ``error_`` fields; ``None`` is an empty cell in CSV."""

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


COLUMNS = tuple(column.name for column in fields(Row))
_TEXT_COLUMNS = (
    "path",
    "class_name",
    "model",
    "error_type",
    "error_title",
    "error_detail",
    "request_id",
)
_JSON_COLUMNS = tuple(name for name in COLUMNS if name not in _TEXT_COLUMNS)


async def classify_files(
    client: AsyncClient, images: Iterable[Path], concurrency: int, on_row: Callable[[Row], None]
) -> None:
    """Classify images, ``concurrency`` at a time, and hand over each one's row as soon as it is known.

    Raises:
        UnreachableError: No connection can be made any more; the images left are not tried.
    """
    queue = iter(images)

    async def work() -> None:
        for path in queue:
            try:
                found = await client.predict(path)
            except UnreachableError:
                raise
            except ClientError as error:
                problem = error.problem_type, error.title, error.detail, error.request_id
                kind, title, detail, request_id = (text and text[:500] for text in problem)
                on_row(
                    Row(str(path), None, None, None, None, None, kind, title, detail, request_id)
                )
            else:
                answer = found.class_id, found.class_name, found.probability, found.probabilities
                model = f"{found.model_name}/{found.model_version}"
                extras = found.explanation, found.distance, found.in_distribution
                on_row(Row(str(path), *answer, model, None, None, None, None, *extras))

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group  # they all fail for the same reason


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the files that files, folders (searched recursively for image suffixes) and globs name, each once.

    Raises:
        UsageError: An argument names no image.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        matches = (
            [argument] if Path(argument).exists() else sorted(glob.glob(argument, recursive=True))
        )  # noqa: PTH207
        images = [image for match in matches for image in _list_images(Path(match))]
        if not images:
            reason = (
                f"holds no {', '.join(sorted(IMAGE_SUFFIXES))} file"
                if matches
                else "is no file, folder or match"
            )
            raise UsageError(f"{argument} {reason}")
        found |= dict.fromkeys(images)
    return list(found)


def _list_images(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]  # named by the user: whatever it is, the server is the judge
    inside = (
        file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    )
    return sorted(
        file for file in inside if not file.name.startswith(".")
    )  # such as macOS's ._boot.png


class RowFile:
    """A CSV or JSONL file, by its suffix, of rows that are appended whole, so that a killed run loses none.

    Opening it replaces what is there with ``kept`` in one step. A path that is not UTF-8 keeps its bytes.
    """

    def __init__(self, path: Path, kept: Iterable[Row] = ()) -> None:
        self._is_csv = _is_csv(path)
        draft = path.with_name(path.name + ".draft")
        try:
            with draft.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.write(_csv_line(COLUMNS) if self._is_csv else "")
                file.writelines(map(self._line, kept))
            draft.replace(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        self._file = path.open("a", encoding="utf-8", errors="surrogateescape", newline="\n")

    def append(self, row: Row) -> None:
        """Write one row and hand it to the operating system."""
        self._file.write(self._line(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, row: Row) -> str:
        record = asdict(row)
        if not self._is_csv:
            return json.dumps(record) + "\n"
        return _csv_line(
            json.dumps(v) if k in _JSON_COLUMNS and v is not None else v for k, v in record.items()
        )


def _is_csv(path: Path) -> bool:
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"the output must end in .csv or .jsonl, got {path}")
    return path.suffix == ".csv"


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of an output file, without the last one where a killed run left it cut.

    Raises:
        UsageError: The file is not an output of this client.
    """
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        lines = file.readlines()
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        return (
            list(_read_csv(lines)) if _is_csv(path) else [Row(**json.loads(line)) for line in lines]
        )
    except (csv.Error, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is not an output of this client and cannot be resumed: {error}"
        ) from error


def _read_csv(lines: Sequence[str]) -> Iterator[Row]:
    if lines and lines[0] != _csv_line(COLUMNS):
        raise ValueError(f"its first line is not {','.join(COLUMNS)}")
    reader = csv.reader(lines[1:], strict=True)
    try:
        for cells in reader:
            row: dict[str, Any] = dict(zip(COLUMNS, (cell or None for cell in cells), strict=True))
            yield Row(**row | {name: json.loads(row[name]) for name in _JSON_COLUMNS if row[name]})
    except csv.Error:
        if reader.line_num < len(lines) - 1:
            raise  # at the end it is the cut last row, broken off after a line break inside quotes


def _read_kept_rows(
    output: Path, images: Iterable[Path], resume: bool, overwrite: bool
) -> list[Row]:
    """Return the rows to keep of an earlier run: all but the failed ones of the images asked for again."""
    if resume and overwrite:
        raise UsageError("--resume keeps the output and --overwrite replaces it: give one of them")
    _is_csv(output)
    if overwrite or not output.exists():
        return []
    if not resume:
        raise UsageError(
            f"{output} exists: continue it with --resume or replace it with --overwrite"
        )
    asked = {str(image) for image in images}
    return [row for row in read_rows(output) if row.class_name is not None or row.path not in asked]


@dataclass
class Summary:
    """Counts over rows; with ``labels_from_folders`` an image's true class is the name or id that its folder bears."""

    labels_from_folders: bool = False
    classes: dict[str, None] = field(default_factory=dict)  # a set in label order
    predicted: defaultdict[str, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )  # their probabilities
    labelled: defaultdict[str, list[bool]] = field(
        default_factory=lambda: defaultdict(list)
    )  # whether recognised
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count one row."""
        if row.class_name is None or row.probability is None:
            self.failed[row.error_title or "Unknown error"] += 1
            return
        names = list(row.probabilities or {})
        self.classes |= dict.fromkeys(names)
        self.predicted[row.class_name].append(row.probability)
        true_names = {str(class_id): name for class_id, name in enumerate(names)} | {
            name: name for name in names
        }
        true_name = true_names.get(Path(row.path).parent.name)
        if self.labels_from_folders and true_name is not None:
            self.labelled[true_name].append(true_name == row.class_name)

    def table(self) -> Table:
        """Return a line for each class: images predicted, mean probability and, with labels, true and recognised."""
        headings = ["true", "recognised"] if self.labels_from_folders else []
        table = Table(
            "class",
            *(
                Column(name, justify="right")
                for name in ["predicted", "mean probability", *headings]
            ),
        )
        for name in self.classes:
            found, hits = self.predicted[name], self.labelled[name]
            labels = [str(len(hits)), str(sum(hits))] if self.labels_from_folders else []
            table.add_row(
                escape(name), str(len(found)), f"{fmean(found):.3f}" if found else "", *labels
            )
        return table

    def lines(self) -> Iterator[str]:
        """Yield the totals, the failures by title and, with labels, the accuracy over what is labelled and answered."""
        answered = sum(map(len, self.predicted.values()))
        yield f"{answered + self.failed.total()} images: {answered} classified, {self.failed.total()} failed"
        yield from (f"  {count} x {title}" for title, count in self.failed.most_common())
        hits = [hit for hits in self.labelled.values() for hit in hits]
        if hits:
            yield f"accuracy: {fmean(hits):.2%} ({sum(hits)} of {len(hits)} labelled and classified images)"
        elif self.labels_from_folders:
            yield "accuracy: unknown, no classified image lies in a folder named after a class or its id"


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f} images/s")


def _classify_into_file(
    client: AsyncClient, queue: list[Path], concurrency: int, file: RowFile, total: Summary
) -> None:
    columns = BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(queue))

        def record(row: Row) -> None:
            file.append(row)
            total.add(row)
            progress.advance(bar)

        async def run() -> None:
            async with client:
                await classify_files(client, queue, concurrency, record)

        asyncio.run(run())


def _run(
    paths: Annotated[
        list[str], typer.Argument(help="Files, folders (searched recursively) and quoted globs.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the rows go: a .csv or .jsonl file.")
    ],
    url: Annotated[str, typer.Option(help="The service's base URL.")] = "http://127.0.0.1:8000",
    concurrency: Annotated[
        int, typer.Option(min=1, max=MAX_CONNECTIONS, help="Requests under way at once.")
    ] = 8,
    retries: Annotated[
        int, typer.Option(min=0, help="Further attempts at an image that may yet succeed.")
    ] = 5,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds to wait for each step of a request.")
    ] = 30.0,
    api_key: Annotated[
        str, typer.Option(envvar="FASHION_CLASSIFIER_API_KEY", help="Sent as a bearer token.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip the images that the output has an answer for.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add what the model saw of each image, and warnings.")
    ] = False,
    labels_from_folders: Annotated[
        bool,
        typer.Option(
            "--labels-from-folders",
            help="Print the accuracy: each folder bears a class's name or id.",
        ),
    ] = False,
) -> None:
    """Classify images and write a row for each, in the order of the answers; then print a summary of the output.

    Exit code: 0 if every row is an answer, 1 if not, 2 for a wrong command line, 130 after Ctrl-C.
    """
    summary, stopped = Summary(labels_from_folders), 0
    try:
        images = find_images(paths)
        kept = _read_kept_rows(output, images, resume, overwrite)
        client = AsyncClient(url, api_key, timeout, retries, explain=explain)
        done = {row.path for row in kept}
        for row in kept:
            summary.add(row)
        with closing(RowFile(output, kept)) as file:
            queue = [image for image in images if str(image) not in done]
            _classify_into_file(client, queue, concurrency, file, summary)
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except (ClientError, OSError) as error:
        typer.echo(
            f"error: {error}\n{output} keeps what was done; continue with --resume", err=True
        )
        stopped = 1
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {output} keeps what was done; continue with --resume", err=True)
        stopped = 130
    Console().print(summary.table())
    typer.echo("\n".join(summary.lines()))
    raise typer.Exit(stopped or int(summary.failed.total() > 0))


def main() -> None:
    """Run the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(_run)
    app()


if __name__ == "__main__":
    main()
