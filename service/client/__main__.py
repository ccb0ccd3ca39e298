"""The command line: classifies many files and writes a row for each."""

import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import stamina.instrumentation
import typer
from rich.console import Console
from typer import Argument, Option

from service.client.client import MAX_CONNECTIONS, AsyncClient
from service.client.errors import UsageError
from service.client.files import find_images, identify
from service.client.rows import Row, RowFile, read_kept_rows
from service.client.run import run
from service.client.sheet import Sheet
from service.client.summary import Summary


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
        Path | None,
        Option(help="The folder for what the model saw: PNG files, and a page that shows them."),
    ] = None,
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
    found = find_images(paths, left_out=explain)
    summary, sheet = Summary(labels_from_folders), Sheet(explain) if explain else None
    kept = read_kept_rows(output, found.images, resume=resume, overwrite=overwrite)
    if sheet:  # an image whose pictures are missing is asked again
        asked = {identify(image) for image in found.images}
        kept = [row for row in kept if sheet.holds(row) or identify(Path(row.path)) not in asked]
    kept = [row.labelled() for row in kept] if labels_from_folders else kept
    client = AsyncClient(url, api_key, timeout_s=timeout, retries=retries)
    predict = partial(client.predict, explain=explain is not None, model=model)
    for row in kept:
        summary.add(row)
        if sheet:
            sheet.add_saved(row)
    done = {identify(Path(row.path)) for row in kept}
    remaining = [image for image in found.images if identify(image) not in done]
    with closing(RowFile(output, kept)) as file:

        def record(row: Row) -> None:
            row = row.labelled() if labels_from_folders else row
            row = sheet.add(row) if sheet else row
            file.append(row)
            summary.add(row)

        exit_code = run(client, predict, remaining, concurrency, record)
    if exit_code:
        typer.echo(f"{output} has the rows so far. Continue with --resume", err=True)
    _report(summary, found.describe_passed_over(), sheet)
    is_incomplete = summary.failed.total() > 0 or (require_labels and bool(summary.unlabelled))
    raise typer.Exit(exit_code or int(is_incomplete))


def _report(summary: Summary, passed_over: str, sheet: Sheet | None) -> None:
    Console().print(summary.table())
    typer.echo("\n".join(summary.lines(passed_over)))
    if sheet:
        typer.echo(f"{sheet.write()} shows what the model saw")
    for warning in summary.warnings():
        typer.echo(warning, err=True)


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
