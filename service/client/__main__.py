"""The command line: classifies many files and writes a row for each."""

import asyncio
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import stamina.instrumentation
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text
from typer import Argument, Option

from service.client.client import MAX_CONNECTIONS, AsyncClient
from service.client.errors import ClientError, ProblemError, UnreachableError, UsageError
from service.client.files import find_images, identify
from service.client.rows import Row, RowFile, read_kept_rows
from service.client.summary import Summary

# The key, the path or the method is wrong, whatever the image is.
STATUSES_OF_EVERY_IMAGE = frozenset({401, 403, 404, 405})


async def classify_files(
    client: AsyncClient, images: Iterable[Path], concurrency: int, on_row: Callable[[Row], None]
) -> None:
    """Classify images, ``concurrency`` at a time, and pass each row to ``on_row`` when it is ready.

    Raises:
        UnreachableError: The server is unreachable. The remaining images are not tried.
        ProblemError: The server rejects every image, for example because the API key is wrong. The
            remaining images are not tried.
    """
    queue = iter(images)

    async def work() -> None:
        for path in queue:
            try:
                row = Row.answered(path, await client.predict(path))
            except ClientError as error:
                if _ends_run(error):
                    raise
                row = Row.failed(path, error)
            on_row(row)

    try:
        async with client, asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group  # one reason is enough to end the run


def _ends_run(error: ClientError) -> bool:
    """Say whether all other images would get the same error."""
    if isinstance(error, ProblemError):
        return error.status in STATUSES_OF_EVERY_IMAGE
    return isinstance(error, UnreachableError)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f} images/s")


def _classify_into_file(
    client: AsyncClient, images: list[Path], concurrency: int, file: RowFile, summary: Summary
) -> int:
    """Return the exit code: 0 at the end, 1 after an error that stops the run, 130 after Ctrl-C."""
    columns = BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=len(images))

            def record(row: Row) -> None:
                row = row.labelled() if summary.labels_from_folders else row
                file.append(row)
                summary.add(row)
                progress.advance(bar)

            asyncio.run(classify_files(client, images, concurrency, record))
        return 0
    except ClientError as error:
        reason, exit_code = f"error: {error.detail}", 1
    except OSError as error:
        reason, exit_code = f"error: {error}", 1
    except KeyboardInterrupt:
        reason, exit_code = "interrupted", 130
    typer.echo(f"{reason}\n{file.path} has the rows so far. Continue with --resume", err=True)
    return exit_code


def _run(
    paths: Annotated[
        list[str], Argument(help="Files, folders (searched recursively) and quoted globs.")
    ],
    output: Annotated[Path, Option("--output", "-o", help="The .csv or .jsonl file to write.")],
    url: Annotated[str, Option(help="The service's base URL.")] = "http://127.0.0.1:8000",
    concurrency: Annotated[int, Option(min=1, max=MAX_CONNECTIONS, help="Requests at a time.")] = 8,
    retries: Annotated[int, Option(min=0, help="Retries for each image.")] = 5,
    timeout: Annotated[
        float, Option(min=0.001, help="Seconds to wait for each step: connect, send, receive.")
    ] = 30.0,
    api_key: Annotated[
        str, Option(envvar="FASHION_CLASSIFIER_API_KEY", help="Sent as a bearer token.")
    ] = "",
    resume: Annotated[
        bool, Option("--resume", help="Continue an output: skip images that have an answer.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    explain: Annotated[
        bool, Option("--explain", help="Add the image as the model saw it, and warnings.")
    ] = False,
    model: Annotated[
        str | None,
        Option(help="Name of the model that answers. Without it, the service chooses one."),
    ] = None,
    labels_from_folders: Annotated[
        bool,
        Option(
            "--labels-from-folders",
            help="Print the accuracy. An image's true class is its folder's name: a name or an id.",
        ),
    ] = False,
    require_labels: Annotated[
        bool,
        Option(
            "--require-labels",
            help="With --labels-from-folders: exit with 1 if an image's folder names no class.",
        ),
    ] = False,
) -> None:
    """Classify images, write a row for each, and print a summary.

    Exit code: 0 if every image has an answer, 1 if not, 2 for a wrong argument, 130 after Ctrl-C.
    """
    if require_labels and not labels_from_folders:
        raise UsageError("got --require-labels without --labels-from-folders; give both")
    found = find_images(paths)
    images = found.images
    kept = read_kept_rows(output, images, resume=resume, overwrite=overwrite)
    client = AsyncClient(
        url, api_key, timeout_s=timeout, retries=retries, explain=explain, model=model
    )
    summary = Summary(labels_from_folders)
    kept = [row.labelled() for row in kept] if labels_from_folders else kept
    for row in kept:
        summary.add(row)
    done = {identify(Path(row.path)) for row in kept}
    remaining = [image for image in images if identify(image) not in done]
    with closing(RowFile(output, kept)) as file:
        exit_code = _classify_into_file(client, remaining, concurrency, file, summary)
    Console().print(summary.table())
    typer.echo("\n".join(summary.lines(found.describe_passed_over())))
    for warning in summary.warnings():
        typer.echo(warning, err=True)
    is_incomplete = summary.failed.total() > 0 or (require_labels and bool(summary.unlabelled))
    raise typer.Exit(exit_code or int(is_incomplete))


def main() -> None:
    """Run the command line."""
    stamina.instrumentation.set_on_retry_hooks(())  # stamina's structlog hook prints on stdout
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(_run)
    try:
        app()
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
