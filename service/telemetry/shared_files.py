"""The files in which several workers share their metrics.

Prometheus' client writes a worker's values into files of a folder, and reads the files of all
workers to report their sums. Here a worker counts in memory and writes about once a second.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, values
from prometheus_client.exposition import generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

SUMMED = ("counter", "histogram")  # the other files hold gauges, which end with their worker


class SharedFiles:
    """This worker's files in the folder of all workers. Create it before the metrics."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generation = 0
        self._changed: set[Any] = set()
        shared = values.MultiProcessValue(self._name)  # type: ignore[no-untyped-call]
        values.ValueClass = _count_in_memory(shared, self._changed)

    def write(self) -> None:
        """Write all counts to the files."""
        for value in self._changed:
            value.write()
        self._changed.clear()

    def render(self) -> bytes:
        """Return the sums over all workers in Prometheus' text format."""
        registry = CollectorRegistry()
        with _locked(self._folder, fcntl.LOCK_SH):
            MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
            return generate_latest(registry)

    def restore(self) -> None:
        """Write to new files if the files are gone: systems delete old temporary files.

        The counts begin at zero then, which Prometheus takes for a restart.
        """
        if not (self._folder / f"counter_{self._name()}.db").exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._generation += 1

    def _name(self) -> str:
        """Name the files. Prometheus' client opens new files when the name changes."""
        return f"{os.getpid()}-{self._generation}"


def _count_in_memory(shared: Any, changed: set[Any]) -> Any:
    """Extend a class of shared values: ``inc`` counts, adds to ``changed``, and leaves the file."""

    class Value(shared):  # type: ignore[misc]
        _added = 0.0

        def inc(self, amount: float) -> None:
            self._added += amount
            changed.add(self)

        def write(self) -> None:
            added, self._added = self._added, 0.0
            super().inc(added)

    return Value


def forget_worker(process_id: int, folder: str) -> None:
    """Remove the files of an ended worker from ``folder``; add its counts to those of all ended."""
    if not Path(folder).exists():
        return
    with _locked(Path(folder), fcntl.LOCK_EX):
        for path in Path(folder).glob(f"*_{process_id}-*.db"):
            kind = path.name.partition("_")[0]
            if kind in SUMMED:
                with suppress(RuntimeError, ValueError):  # the worker was killed while it wrote
                    _add(path, path.with_name(f"{kind}_ended.db"))
            path.unlink()


def _add(path: Path, total_path: Path) -> None:
    total = MmapedDict(str(total_path))  # type: ignore[no-untyped-call]
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            earlier, _ = total.read_value(key)  # type: ignore[no-untyped-call]
            total.write_value(key, earlier + value, 0.0)  # type: ignore[no-untyped-call]
    finally:
        total.close()  # type: ignore[no-untyped-call]


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Lock the folder, so that nobody reads a worker's counts twice or not at all."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, kind)
        yield
