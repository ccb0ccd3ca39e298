"""Classifies many files at a time, and stops where the other images would get the same error."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

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

from service.client.answers import Prediction, hide_password
from service.client.client import LONGEST_RETRY_AFTER_S, AsyncClient
from service.client.errors import (
    ClientError,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
)
from service.client.rows import Row

# The upload stalls, or the image is too large, cannot be read, or comes too soon. All other 3xx and
# 4xx are about the URL, the key or the headers, which are the same for every image.
STATUSES_OF_ONE_IMAGE = frozenset({408, 413, 422, 429})


def run(
    client: AsyncClient,
    predict: Callable[[Path], Awaitable[Prediction]],
    images: Sequence[Path],
    concurrency: int,
    on_row: Callable[[Row], None],
) -> int:
    """Classify images with a progress bar; print the error that stops the run.

    Returns:
        The exit code: 0 at the end, 1 after an error that stops the run, 130 after Ctrl-C.
    """
    columns = BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn()

    async def classify() -> None:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=len(images))

            def record(row: Row) -> None:
                on_row(row)
                progress.advance(bar)

            async with client:
                await classify_files(predict, images, concurrency, record)

    try:
        asyncio.run(classify())
        return 0
    except ClientError as error:
        reason, exit_code = f"error: {_explain_end(error, client.url)}", 1
    except OSError as error:
        reason, exit_code = f"error: {error}", 1
    except KeyboardInterrupt:
        reason, exit_code = "interrupted", 130
    typer.echo(reason, err=True)
    return exit_code


async def classify_files(
    predict: Callable[[Path], Awaitable[Prediction]],
    images: Sequence[Path],
    concurrency: int,
    on_row: Callable[[Row], None],
) -> None:
    """Classify images, ``concurrency`` at a time, and pass each row to ``on_row`` when it is ready.

    Raises:
        ClientError: All other images would get the same error, for example because the API key is
            wrong. The remaining images are not tried.
    """
    queue = iter(images)

    async def work() -> None:
        for path in queue:
            try:
                row = Row.answered(path, await predict(path))
            except ClientError as error:
                if _ends_run(error):
                    raise
                row = Row.failed(path, error)
            on_row(row)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group  # one reason is enough to end the run


def _ends_run(error: ClientError) -> bool:
    """Say whether all other images would get the same error."""
    if not isinstance(error, ProblemError):
        return isinstance(error, (UnreachableError, UnexpectedAnswerError))
    return (
        (300 <= error.status < 500 and error.status not in STATUSES_OF_ONE_IMAGE)
        or error.status == 501  # the server has no POST
        or error.problem_type.endswith("invalid-parameter")
        or (error.retry_after_s or 0) > LONGEST_RETRY_AFTER_S
    )


def _explain_end(error: ClientError, url: str) -> str:
    if not isinstance(error, ProblemError):
        return error.detail
    answer = f"{hide_password(url)} answered {error.status} ({error.title}): {error.detail}"
    return f"{answer}\nAll other images would get this answer too, so the run stops"


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f} images/s")
