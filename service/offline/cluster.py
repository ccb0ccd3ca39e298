"""Distributes parts over the cores or GPUs of a machine or a cluster, with Ray Data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import ray
from ray.exceptions import RayError

from service.bundle import newest_version, read_bundle
from service.errors import DeviceError, InvalidParameterError, WorkerError
from service.offline.classify import Classify
from service.offline.parts import Part
from service.settings import Settings

MAX_BLOCKS = 10_000  # the parts are distributed in so many blocks, at most
RETRIES = 3  # a part whose worker dies more often stops the run

Machine = Mapping[str, float]
"""What a machine of the cluster has, such as CPU and GPU."""


def classify(parts: list[Part], settings: Settings, model: str | None) -> tuple[int, int]:
    """Classify ``parts``; return the number of images, and of images without an answer.

    Raises:
        BundleError: A model is missing or damaged.
        InvalidParameterError: No model is called ``model``.
        DeviceError: The device is ``cuda`` and there is no GPU.
        WorkerError: A worker failed.
    """
    # A mistake fails here, with one message, and not in each worker.
    bundles = [read_bundle(newest_version(folder)) for folder in settings.models]
    names = [bundle.manifest.name for bundle in bundles]
    if model not in (None, *names):
        raise InvalidParameterError(
            f"model={model}: this model is not served; name one of {', '.join(names)}"
        )
    if not parts:
        return 0, 0
    ray.init(include_dashboard=False, logging_level="warning", ignore_reinit_error=True)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = settings.device != "cpu" and any(each.get("GPU") for each in machines)
    if settings.device == "cuda" and not with_gpu:
        raise DeviceError("SERVICE_DEVICE=cuda, but Ray knows no machine with a GPU")
    places = _count_places(machines, 1, with_gpu=with_gpu)
    actors = max(1, min(settings.workers or places, places, len(parts)))
    share = _choose_share(machines, actors, with_gpu=with_gpu)
    done = ray.data.from_items(
        [asdict(part) for part in parts], override_num_blocks=min(len(parts), MAX_BLOCKS)
    ).map(
        Classify,
        fn_constructor_args=(settings, model, settings.threads or share),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=share,
        num_gpus=1 if with_gpu else None,
        max_task_retries=RETRIES,
    )
    try:
        counts = list(done.iter_rows())
    except RayError as error:  # its text is the worker's traceback
        raise WorkerError(str(error).strip().rpartition("\n")[2]) from error
    return sum(row["images"] for row in counts), sum(row["errors"] for row in counts)


def _choose_share(machines: Sequence[Machine], actors: int, *, with_gpu: bool) -> int:
    """Return the most cores that each of ``actors`` can have: Ray would wait forever for more."""
    share = max(int(machine.get("CPU", 0)) for machine in machines)
    while share > 1 and _count_places(machines, share, with_gpu=with_gpu) < actors:
        share -= 1
    return max(share, 1)


def _count_places(machines: Iterable[Machine], share: int, *, with_gpu: bool) -> int:
    """Count the actors of ``share`` cores that fit, with one GPU each if there are GPUs."""
    places = [
        (int(machine.get("CPU", 0)) // share, int(machine.get("GPU", 0))) for machine in machines
    ]
    return sum(min(place) if with_gpu else place[0] for place in places)
