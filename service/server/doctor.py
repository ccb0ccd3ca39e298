"""Own ``python -m service doctor``: a page on whether this machine would serve as configured, and if not, what to do.

Every part of it must work where that which it examines is missing or broken.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from service.api.keys import KeyRing
from service.bundle import newest_version, read_bundle
from service.errors import AddressError, ServiceError
from service.machine import nvidia
from service.machine.resources import available_cores, core_quota, memory_limit_bytes
from service.machine.sizing import IDLE_BYTES, count_threads, count_workers, largest_image_bytes
from service.server.listening import listen
from service.settings import Settings

Level = Literal["ok", "warn", "fail"]

PACKAGES = ("fastapi", "starlette", "uvicorn", "pydantic", "numpy", "pillow", "python-multipart")
GPU_REMEDY = "set SERVICE_DEVICE=cpu if no GPU is meant"


@dataclass(frozen=True)
class Finding:
    """One line of the page; ``remedy`` is a second one."""

    level: Level
    topic: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:5} {self.topic:10} {self.text}" + (
            f"\n{'':16} -> {self.remedy}" if self.remedy else ""
        )


def doctor(settings: Settings, root: Path = Path("/")) -> tuple[str, bool]:
    """Return the page, and whether the service would serve as configured; ``root`` holds ``proc`` and ``sys``."""
    # The session is opened before the libraries are looked for: one that is loaded here would not be missed there.
    checks = (
        _python,
        _runtime,
        _model,
        _session,
        _driver,
        _cuda,
        _address,
        _access,
        _limits,
        _cores,
        _memory,
    )
    findings = [_examine(check, settings, root) for check in checks]
    failures = sum(finding.level == "fail" for finding in findings)
    verdict = (
        f"It would not serve as configured; failures: {failures}."
        if failures
        else "It would serve as configured."
    )
    return "\n".join(map(str, [*findings, "", verdict])), not failures


def _examine(check: Callable[[Settings, Path], Finding], settings: Settings, root: Path) -> Finding:
    try:
        return check(settings, root)
    except ServiceError as error:
        return Finding("fail", check.__name__[1:], str(error))
    except (
        Exception
    ) as error:  # whatever is broken here, the rest of the page is wanted all the more
        return Finding(
            "fail",
            check.__name__[1:],
            f"cannot be examined: {error!r}",
            "install the service again",
        )


def _python(_: Settings, __: Path) -> Finding:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return Finding(
        "ok", "python", f"{platform.python_version()} on {platform.platform()}; {versions}"
    )


def _runtime(_: Settings, __: Path) -> Finding:
    names = nvidia.runtime_packages()
    found = " and ".join(f"{name} {metadata.version(name)}" for name in names)
    cuda = nvidia.wanted_cuda()
    if not names:
        return Finding(
            "fail",
            "runtime",
            "no package installs the module onnxruntime",
            "pip install onnxruntime-gpu",
        )
    if len(names) > 1:
        fix = f"pip uninstall --yes {' '.join(names)}, then pip install only one of them"
        return Finding(
            "fail",
            "runtime",
            f"{found} overwrite each other: both install the module onnxruntime",
            fix,
        )
    return Finding("ok", "runtime", f"{found}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}")


def _model(settings: Settings, _: Path) -> Finding:
    bundle = read_bundle(newest_version(settings.model))
    manifest = bundle.manifest
    text = f"{manifest.name} version {manifest.version}, {len(manifest.class_names)} classes, in {bundle.folder}"
    return Finding("ok", "model", f"{text}; sha256 of {len(manifest.files)} files verified")


def _session(settings: Settings, _: Path) -> Finding:
    from service.inference.classifier import (
        load_classifier,  # loads onnxruntime, which may be what is broken
    )

    classifier = load_classifier(settings)
    text = f"self-test passed on {classifier.device}; providers obtained: {', '.join(classifier.providers)}"
    if settings.device == "auto" and classifier.device == "cpu":
        return Finding(
            "warn", "session", text, f"the lines on driver and cuda say what lacks; {GPU_REMEDY}"
        )
    return Finding("ok", "session", text)


def _driver(settings: Settings, root: Path) -> Finding:
    module = root / "proc/driver/nvidia/version"
    described = (
        module.read_text().splitlines()[0]
        if module.exists()
        else "no NVIDIA kernel module is loaded"
    )
    remedy = f"install NVIDIA's driver, or lend the container the GPU (docker run --gpus all); {GPU_REMEDY}"
    try:
        driver = nvidia.find_driver()
    except OSError as error:
        return _lacking(settings, "driver", f"{error}; {described}", remedy)
    cuda = nvidia.wanted_cuda()
    text = f"for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}; {described}; GPUs: {driver.gpus}"
    if not driver.gpus:
        return _lacking(settings, "driver", text, remedy)
    if cuda and driver.cuda[0] < cuda:
        return _lacking(
            settings,
            "driver",
            f"{text}; this onnxruntime wants CUDA {cuda}",
            "install a newer driver",
        )
    return Finding("ok", "driver", text)


def _cuda(settings: Settings, _: Path) -> Finding:
    cuda = nvidia.wanted_cuda()
    if cuda is None:
        return _lacking(
            settings, "cuda", "this onnxruntime is built for the CPU", "pip install onnxruntime-gpu"
        )
    found = nvidia.find_libraries(cuda)
    text = f"this onnxruntime wants CUDA {cuda} and cuDNN 9; packages of NVIDIA: {', '.join(found.packages) or 'none'}"
    if found.missing:
        text += f"; CUDA found: {', '.join(map(str, found.cudas)) or 'none'}; missing: {', '.join(found.missing)}"
        return _lacking(
            settings, "cuda", text, f"pip install 'onnxruntime-gpu[cuda,cudnn]'; {GPU_REMEDY}"
        )
    return Finding("ok", "cuda", f"{text}; all of it loads")


def _access(settings: Settings, _: Path) -> Finding:
    if settings.api_keys_file is not None:
        KeyRing(settings.api_keys_file)
    keys = f"API keys of {settings.api_keys_file}" if settings.api_keys_file else "no API keys"
    rate = (
        f"{settings.rate_limit_per_minute} uploads a minute"
        if settings.rate_limit_per_minute
        else "no rate limit"
    )
    return Finding("ok", "access", f"{settings.host} port {settings.port}; {keys}; {rate}")


def _address(settings: Settings, _: Path) -> Finding:
    try:
        listen(settings)[0].close()
    except AddressError as error:
        # No failure: the one that listens may be this very service, looked at while it serves.
        return Finding("warn", "address", str(error))
    return Finding("ok", "address", f"{settings.host}:{settings.port} is free")


def _limits(settings: Settings, _: Path) -> Finding:
    names = [
        name for name in type(settings).model_fields if name.startswith("max_") or "seconds" in name
    ]
    return Finding("ok", "limits", ", ".join(f"{name}={getattr(settings, name)}" for name in names))


def _cores(settings: Settings, root: Path) -> Finding:
    cores, quota = available_cores(root), core_quota(root)
    workers = count_workers(settings, root)
    threads = count_threads(settings, workers, root)
    text = f"{cores} (quota of the container: {quota or 'none'}); workers: {workers}, threads each: {threads}"
    if quota and workers * threads > math.ceil(quota):
        fix = f"the quota will stall so many; set SERVICE_THREADS={max(1, math.ceil(quota) // workers)}"
        return Finding("warn", "cores", text, fix)
    return Finding("ok", "cores", text)


def _memory(settings: Settings, root: Path) -> Finding:
    limit = memory_limit_bytes(root)
    workers = count_workers(settings, root)
    decoding = count_threads(settings, workers, root) * largest_image_bytes(settings)
    needed = workers * (IDLE_BYTES + decoding + settings.max_bytes_in_flight)
    text = f"limit of the container: {limit or 'none'}; the largest uploads, all at once, need {needed}"
    if limit and limit < needed:
        fix = "lower SERVICE_MAX_IMAGE_PIXELS, SERVICE_MAX_BYTES_IN_FLIGHT or SERVICE_THREADS"
        return Finding("warn", "memory", text, fix)
    return Finding("ok", "memory", text)


def _lacking(settings: Settings, topic: str, text: str, remedy: str) -> Finding:
    """Say what a GPU lacks; whether the service does without is for the session to say."""
    if settings.device == "cpu":
        return Finding("ok", topic, f"{text} (not needed: SERVICE_DEVICE=cpu)")
    return Finding("warn", topic, text, remedy)
