"""Classifies the images of a part and writes the answers, as ``POST /predict`` gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from service.errors import ServiceError, SourceError, UploadTooLargeError
from service.inference.classifier import load_classifier
from service.inference.models import LiveModels
from service.inference.predictor import ImageAnswer, Predictor
from service.offline.parts import Part, writing
from service.offline.storage import Storage
from service.settings import Settings

IMAGES_AT_ONCE = 64  # read before they are classified; twice as many are in memory
READERS = 16  # threads that wait for a disk or a bucket

SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "class_id": pa.int32(),
        "class_name": pa.string(),
        "probability": pa.float32(),
        "probabilities": pa.map_(pa.string(), pa.float32()),
        "distance": pa.float32(),
        "in_distribution": pa.bool_(),
        "model": pa.string(),
        "version": pa.string(),
        "error": pa.string(),
    }
)

Row = dict[str, Any]
Upload = bytes | Exception


class Classify:
    """Loads the models once, and then classifies one part after the other.

    ``model`` is the name of the model that answers; None: the image decides, as over HTTP.

    Raises:
        InvalidParameterError: No model is called ``model``.
        NotReadyError: A model cannot be loaded.
    """

    def __init__(self, settings: Settings, model: str | None, threads: int) -> None:
        self._max_bytes = settings.max_upload_bytes
        self._model = model
        self._storage = Storage()
        self._readers = ThreadPoolExecutor(READERS)
        # Not asyncio.Runner: to remove its handler of Ctrl-C, it writes a task's result as text.
        self._loop = asyncio.new_event_loop()
        load = partial(load_classifier, device=settings.device)
        self._models = LiveModels(settings, load, threads=threads)
        self._predictor = Predictor(settings, self._models, threads=threads)
        try:
            self._loop.run_until_complete(self._models.start())
            self._models.route(model)
        except ServiceError:
            self.close()
            raise

    def __call__(self, part: Row) -> Row:
        """Classify the images of a ``Part`` and return how many there are, and how many failed.

        Raises:
            InferenceError: The model failed.
            OSError: The part's images cannot be listed, or the answers not be written.
        """
        counts = {"images": 0, "errors": 0}
        task = Part(**part)
        with writing(self._storage, task.answers, SCHEMA) as writer:
            for paths, uploads in self._read(task):
                rows = self._answer(paths, uploads)
                writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))
                counts["images"] += len(rows)
                counts["errors"] += sum("error" in row for row in rows)
        return counts

    def close(self) -> None:
        """Let the threads stop."""
        self._predictor.close()
        self._models.close()
        self._readers.shutdown()
        self._loop.close()

    def _read(self, part: Part) -> Iterator[tuple[list[str], list[Upload]]]:
        """Yield batches of paths and images, and read the next batch meanwhile."""
        waiting: list[tuple[list[str], list[Future[Upload]]]] = []
        for batch in _read_table(self._storage, part):
            paths = batch.column("path").to_pylist()
            contents = batch.column("bytes") if "bytes" in batch.schema.names else paths
            reads = [self._readers.submit(self._read_image, content) for content in contents]
            waiting.append((paths, reads))
            if len(waiting) == 2:
                yield _wait(*waiting.pop(0))
        for paths, reads in waiting:
            yield _wait(paths, reads)

    def _read_image(self, content: str | pa.Scalar | None) -> Upload:
        """Return the bytes of an image, or why they cannot be read."""
        if content is None:
            return SourceError("the path is missing")
        try:
            if isinstance(content, str):
                data = self._storage.read(content, self._max_bytes + 1)
            else:
                data = content.as_py() or b""
        except (OSError, ValueError, ServiceError) as error:
            return error
        if len(data) > self._max_bytes:
            return UploadTooLargeError(
                f"the file has more than {self._max_bytes} bytes; "
                "send a smaller image or raise SERVICE_MAX_UPLOAD_BYTES"
            )
        return data

    def _answer(self, paths: list[str], uploads: list[Upload]) -> list[Row]:
        images = [upload for upload in uploads if isinstance(upload, bytes)]
        answer = self._predictor.predict_files(images, self._model)
        answers = iter(self._loop.run_until_complete(answer).items)
        items = [next(answers) if isinstance(each, bytes) else each for each in uploads]
        return [{"path": path} | _describe(item) for path, item in zip(paths, items, strict=True)]


def _read_table(storage: Storage, part: Part) -> Iterator[pa.RecordBatch]:
    system, path = storage.locate(part.images)
    with parquet.ParquetFile(path, filesystem=system) as file:
        columns = [name for name in ("path", "bytes") if name in file.schema_arrow.names]
        yield from file.iter_batches(IMAGES_AT_ONCE, [part.row_group], columns)


def _wait(paths: list[str], reads: list[Future[Upload]]) -> tuple[list[str], list[Upload]]:
    return paths, [read.result() for read in reads]


def _describe(item: ImageAnswer | Exception) -> Row:
    if isinstance(item, Exception):
        return {"error": str(item)}
    answer = item.classification
    return {
        "class_id": answer.class_id,
        "class_name": answer.class_name,
        "probability": answer.probability,
        "probabilities": list(answer.by_name().items()),
        "distance": answer.distance,
        "in_distribution": answer.in_distribution,
        "model": answer.manifest.name,
        "version": answer.manifest.version,
    }
