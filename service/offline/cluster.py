"""Distributes parts over the cores or GPUs of a machine or a cluster, with Ray Data."""

from __future__ import annotations

from dataclasses import asdict

import ray

from service.bundle import newest_version, read_bundle
from service.offline.classify import Classify
from service.offline.parts import Part
from service.settings import Settings

MAX_BLOCKS = 10_000  # the parts are distributed in so many blocks, at most
RETRIES = 3  # a part whose worker dies more often stops the run


def classify(parts: list[Part], settings: Settings, model: str | None) -> tuple[int, int]:
    """Classify ``parts``; return the number of images, and of images without an answer.

    Raises:
        BundleError: A model is missing or damaged.
        RayError: A worker failed.
    """
    for folder in settings.models:
        read_bundle(newest_version(folder))  # fails here, with one message, not in each worker
    if not parts:
        return 0, 0
    ray.init(include_dashboard=False, logging_level="warning", ignore_reinit_error=True)
    resources = ray.cluster_resources()
    cores = int(resources.get("CPU", 0))
    gpus = 0 if settings.device == "cpu" else int(resources.get("GPU", 0))
    actors = max(1, min(settings.workers or gpus or cores, cores, len(parts)))
    share = max(1, min(cores // actors, _count_largest(with_gpu=bool(gpus))))
    done = ray.data.from_items(
        [asdict(part) for part in parts], override_num_blocks=min(len(parts), MAX_BLOCKS)
    ).map(
        Classify,
        fn_constructor_args=(settings, model, settings.threads or share),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=share,
        num_gpus=1 if gpus else None,
        max_task_retries=RETRIES,
    )
    counts = list(done.iter_rows())
    return sum(row["images"] for row in counts), sum(row["errors"] for row in counts)


def _count_largest(*, with_gpu: bool) -> int:
    """Return the cores of the largest machine: Ray would wait forever for a larger one."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(int(each.get("CPU", 0)) for each in machines if each.get("GPU") or not with_gpu)
