"""``python -m service doctor`` reports whether the service can run here, and what to change.

A check must still work if the thing that it checks is missing or broken.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from service.api.keys import KeyRing
from service.bundle import read_newest_complete
from service.errors import ServiceError
from service.machine import nvidia
from service.machine.resources import available_cores, core_quota, memory_limit_bytes
from service.machine.sizing import count_threads, count_workers, idle_bytes, largest_image_bytes
from service.server.environment import find_unknown
from service.server.listening import listen
from service.settings import Settings

PACKAGES = ("fastapi", "starlette", "uvicorn", "pydantic", "numpy", "pillow", "python-multipart")
REJECTED_REMEDY = "copy the newer versions again, or remove them"
CPU_REMEDY = "to serve without a GPU, set SERVICE_DEVICE=cpu"


@dataclass(frozen=True)
class Finding:
    """What one check found, and what the reader can do about it."""

    level: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""


def doctor(
    settings: Settings, root: Path = Path("/"), origins: Mapping[str, str] | None = None
) -> tuple[str, bool]:
    """Return the page, and whether the service can run with ``settings``.

    ``root`` is the folder that holds ``proc`` and ``sys``. ``origins`` says for each setting that
    is not a default where its value comes from.
    """
    models = settings.models
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _check_python),
        ("settings", lambda: _check_settings(settings, origins or {})),
        ("runtime", _check_runtime),
        *(("model", partial(_check_model, models, number)) for number in range(len(models))),
        # "session" must run before "cuda". Libraries that "cuda" loads stay loaded, so "session"
        # would pass even if the service cannot find them.
        *(("session", partial(_check_session, folder, settings)) for folder in models),
        ("driver", lambda: _check_driver(settings, root)),
        ("cuda", lambda: _check_cuda(settings)),
        ("address", lambda: _check_address(settings)),
        ("access", lambda: _check_access(settings)),
        ("limits", lambda: _check_limits(settings)),
        ("cores", lambda: _check_cores(settings, root)),
        ("memory", lambda: _check_memory(settings, root)),
    ]
    findings = [(topic, _run(check)) for topic, check in checks]
    failures = sum(finding.level == "fail" for _, finding in findings)
    verdict = "The service can run with these settings."
    if failures:
        verdict = f"The service cannot run with these settings; failed checks: {failures}."
    lines = [_render(topic, finding) for topic, finding in findings]
    return "\n".join([*lines, "", verdict]), not failures


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except ServiceError as error:
        return Finding("fail", str(error))
    except Exception as error:  # the page must be complete, whatever is broken
        return Finding("fail", f"the check itself failed: {error!r}", "install the service again")


def _render(topic: str, finding: Finding) -> str:
    line = f"{finding.level:5} {topic:10} {finding.text}"
    return f"{line}\n{'':16} -> {finding.remedy}" if finding.remedy else line


def _check_python() -> Finding:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    system = f"{platform.python_version()} on {platform.platform()}"
    return Finding("ok", f"{system}; {versions}")


def _check_settings(settings: Settings, origins: Mapping[str, str]) -> Finding:
    named = [
        f"{name}={_show(getattr(settings, name))} (from {place})" for name, place in origins.items()
    ]
    text = ", ".join([*named, "all others are defaults" if named else "all are defaults"])
    if unknown := list(find_unknown()):
        return Finding("warn", "; ".join([*unknown, text]), "correct or remove these variables")
    return Finding("ok", text)


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_runtime() -> Finding:
    names = nvidia.runtime_packages()
    if not names:
        text = "the module onnxruntime is not installed"
        return Finding("fail", text, "pip install onnxruntime-gpu")
    found = " and ".join(f"{name} {metadata.version(name)}" for name in names)
    if len(names) > 1:
        text = f"{found} overwrite each other: each installs the module onnxruntime"
        remedy = f"pip uninstall --yes {' '.join(names)}, then pip install only one of them"
        return Finding("fail", text, remedy)
    cuda = nvidia.needed_cuda()
    return Finding("ok", f"{found}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}")


def _check_model(folders: Sequence[Path], number: int) -> Finding:
    bundle, rejected = read_newest_complete(folders[number])
    manifest = bundle.manifest
    for other in folders[:number]:
        if read_newest_complete(other)[0].manifest.name == manifest.name:
            text = f"{other} and {folders[number]} both hold a model called {manifest.name}"
            return Finding("fail", text, "remove one of the folders from SERVICE_MODELS")
    model = f"{manifest.name} version {manifest.version}, {len(manifest.class_names)} classes"
    verified = f"sha256 of {len(manifest.files)} files verified"
    text = f"{model}, in {bundle.folder}; {verified}"
    if rejected:
        faults = "; ".join(map(str, rejected))
        return Finding("warn", f"{text}; newer versions are rejected: {faults}", REJECTED_REMEDY)
    return Finding("ok", text)


def _check_session(folder: Path, settings: Settings) -> Finding:
    # Imported here because it loads onnxruntime, which may be broken.
    from service.inference.classifier import load_classifier

    bundle, _ = read_newest_complete(folder)
    classifier = load_classifier(bundle.folder, settings.device)
    name, providers = classifier.manifest.name, ", ".join(classifier.providers)
    text = f"{name}: self-test passed on {classifier.device}; providers in use: {providers}"
    if settings.device == "auto" and classifier.device == "cpu":
        remedy = f"see driver and cuda below for what is missing; {CPU_REMEDY}"
        return Finding("warn", text, remedy)
    return Finding("ok", text)


def _check_driver(settings: Settings, root: Path) -> Finding:
    module = root / "proc/driver/nvidia/version"
    kernel = "no NVIDIA kernel module is loaded"
    if module.exists():
        kernel = module.read_text().splitlines()[0]
    remedy = f"install NVIDIA's driver; in a container, use docker run --gpus all; {CPU_REMEDY}"
    try:
        driver = nvidia.find_driver()
    except OSError as error:
        return _gpu_finding(settings, f"{error}; {kernel}", remedy)
    cuda = nvidia.needed_cuda()
    text = f"supports CUDA up to {driver.cuda[0]}.{driver.cuda[1]}; {kernel}; GPUs: {driver.gpus}"
    if not driver.gpus:
        return _gpu_finding(settings, text, remedy)
    if cuda and driver.cuda[0] < cuda:
        text += f"; this onnxruntime needs CUDA {cuda}"
        return _gpu_finding(settings, text, "install a newer driver")
    return Finding("ok", text)


def _check_cuda(settings: Settings) -> Finding:
    cuda = nvidia.needed_cuda()
    if cuda is None:
        text = "this onnxruntime is built for the CPU"
        remedy = "pip uninstall --yes onnxruntime, then pip install onnxruntime-gpu"
        return _gpu_finding(settings, text, remedy)
    found = nvidia.find_libraries(cuda)
    packages = ", ".join(found.packages) or "none"
    text = f"this onnxruntime needs CUDA {cuda} and cuDNN 9; NVIDIA's packages: {packages}"
    if not found.missing:
        return Finding("ok", f"{text}; all libraries load")
    cudas = ", ".join(map(str, found.cudas)) or "none"
    text += f"; CUDA found: {cudas}; missing: {', '.join(found.missing)}"
    remedy = f"pip install 'onnxruntime-gpu[cuda,cudnn]'; {CPU_REMEDY}"
    return _gpu_finding(settings, text, remedy)


def _gpu_finding(settings: Settings, text: str, remedy: str) -> Finding:
    """Report a GPU problem: ok if no GPU is needed, else a warning.

    The check "session" decides whether the service can run without the GPU.
    """
    if settings.device == "cpu":
        return Finding("ok", f"{text} (not needed: SERVICE_DEVICE=cpu)")
    return Finding("warn", text, remedy)


def _check_address(settings: Settings) -> Finding:
    listen(settings)[0].close()
    return Finding("ok", f"{settings.host}:{settings.port} is free")


def _check_access(settings: Settings) -> Finding:
    keys, rate = "no API keys", "no rate limit"
    if settings.api_keys_file is not None:
        KeyRing(settings.api_keys_file)
        keys = f"API keys in {settings.api_keys_file}"
    if settings.rate_limit_per_minute is not None:
        rate = f"{settings.rate_limit_per_minute} images per minute"
    return Finding("ok", f"{keys}; {rate}")


def _check_limits(settings: Settings) -> Finding:
    fields = type(settings).model_fields
    names = [name for name in fields if name.startswith("max_") or "seconds" in name]
    return Finding("ok", ", ".join(f"{name}={getattr(settings, name)}" for name in names))


def _check_cores(settings: Settings, root: Path) -> Finding:
    cores, quota = available_cores(root), core_quota(root)
    workers = count_workers(settings, root)
    threads = count_threads(settings, workers, root)
    processes = f"workers: {workers}, threads each: {threads}"
    text = f"{cores}; container quota: {quota or 'none'}; {processes}"
    if quota and workers * threads > math.ceil(quota):
        fitting = max(1, math.ceil(quota) // workers)
        remedy = f"more threads than the quota allows must wait; set SERVICE_THREADS={fitting}"
        return Finding("warn", text, remedy)
    return Finding("ok", text)


def _check_memory(settings: Settings, root: Path) -> Finding:
    limit = memory_limit_bytes(root)
    workers = count_workers(settings, root)
    decoding = count_threads(settings, workers, root) * largest_image_bytes(settings)
    needed = workers * (idle_bytes(settings) + decoding + settings.max_bytes_in_flight)
    limit_text = f"{limit >> 20} MiB" if limit else "none"
    text = f"container limit: {limit_text}; needed at most: {needed >> 20} MiB"
    if limit and limit < needed:
        remedy = "lower SERVICE_MAX_IMAGE_PIXELS, SERVICE_MAX_BYTES_IN_FLIGHT or SERVICE_THREADS"
        return Finding("warn", text, remedy)
    return Finding("ok", text)
