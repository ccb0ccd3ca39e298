"""The files in which several workers share their metrics: each worker writes its own, all read all.

A worker has one file of counts and one of gauges. When it ends, its counts are added to those of
all ended workers, and its gauges are forgotten.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.telemetry.series import Series, combine_series

Numbers = dict[str, Series]
"""The series of each metric, by the metric's name."""


class SharedFiles:
    """The files of all workers in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, counts: Numbers, gauges: Numbers) -> None:
        """Replace the files of this worker."""
        with _locked(self._folder, fcntl.LOCK_SH):
            _write(self._folder / f"counts-{os.getpid()}.json", counts)
            _write(self._folder / f"gauges-{os.getpid()}.json", gauges)

    def read_others(self) -> list[Numbers]:
        """Return what the other workers have written, and the counts of ended workers."""
        with _locked(self._folder, fcntl.LOCK_SH):
            paths = [
                path
                for path in self._folder.glob("*.json")
                if not path.stem.endswith(f"-{os.getpid()}")
            ]
            return [_read(path) for path in paths]


def forget_worker(process_id: int, folder: Path) -> None:
    """Remove the files of an ended worker; keep its counts with those of all ended workers."""
    with _locked(folder, fcntl.LOCK_EX):
        counts, ended = folder / f"counts-{process_id}.json", folder / "counts-ended.json"
        parts = [_read(path) for path in (counts, ended) if path.exists()]
        names = dict.fromkeys(name for part in parts for name in part)
        _write(
            ended,
            {name: combine_series([part.get(name, {}) for part in parts], sum) for name in names},
        )
        for path in folder.glob(f"*-{process_id}.*"):
            path.unlink()


def _read(path: Path) -> Numbers:
    return {
        name: {tuple(labels): numbers for labels, numbers in series}
        for name, series in json.loads(path.read_bytes()).items()
    }


def _write(path: Path, numbers: Numbers) -> None:
    """Replace a file as a whole: a worker that is killed leaves no half of one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({name: list(series.items()) for name, series in numbers.items()}))
    new.replace(path)


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Lock the folder, so that nobody reads a worker's counts twice or not at all.

    The folder is made again if it is gone: systems delete old temporary files.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, kind)
        yield
