"""NVIDIA's driver and libraries on this machine, and the libraries that onnxruntime needs.

This module does not import onnxruntime, because onnxruntime may be broken.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

CUDA_MAJORS = (11, 12, 13)


@dataclass(frozen=True)
class Driver:
    """The newest CUDA (major, minor) that the driver supports, and the usable GPUs.

    ``memory_bytes`` is the memory of the first one; 0 without a GPU.
    """

    cuda: tuple[int, int]
    gpus: int
    memory_bytes: int


@dataclass(frozen=True)
class Libraries:
    """NVIDIA's pip packages, the CUDA major versions that load, and the missing libraries."""

    packages: tuple[str, ...]
    cudas: tuple[int, ...]
    missing: tuple[str, ...]


def find_driver() -> Driver:
    """Ask the driver for its CUDA version and its GPUs.

    Raises:
        OSError: No driver is installed.
    """
    library = ctypes.CDLL("libcuda.so.1")
    version, gpus, memory_bytes = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    library.cuDriverGetVersion(ctypes.byref(version))
    if library.cuInit(0) == 0:
        library.cuDeviceGetCount(ctypes.byref(gpus))
    if gpus.value:
        library.cuDeviceTotalMem_v2(ctypes.byref(memory_bytes), 0)  # the first GPU's number is 0
    cuda = version.value // 1000, version.value % 1000 // 10
    return Driver(cuda, gpus.value, memory_bytes.value)


def find_libraries(cuda: int) -> Libraries:
    """Try to load the libraries that onnxruntime needs for CUDA ``cuda``, a major version.

    A library may come from a pip package or from the system.
    """
    packages = [
        package
        for package in metadata.distributions()
        if (package.name or "").startswith("nvidia-")
    ]
    cudas = [major for major in CUDA_MAJORS if _loads(f"libcudart.so.{major}", packages)]
    missing = [library for library in _needed_libraries(cuda) if not _loads(library, packages)]
    names = sorted(f"{package.name} {package.version}" for package in packages)
    return Libraries(tuple(names), tuple(cudas), tuple(missing))


def runtime_packages() -> list[str]:
    """Name the packages that install the module onnxruntime.

    If there are several, the package that was installed last has overwritten the others.
    """
    return sorted(set(metadata.packages_distributions().get("onnxruntime", ())))


def needed_cuda() -> int | None:
    """Return the major version of CUDA that onnxruntime is built for; None for a CPU build.

    The version is read from onnxruntime's files, because onnxruntime may not load.
    """
    for name in runtime_packages():
        file = "onnxruntime/capi/build_and_package_info.py"
        path = Path(str(metadata.distribution(name).locate_file(file)))
        text = path.read_text() if path.exists() else ""
        if match := re.search(r"^cuda_version = '(\d+)", text, re.MULTILINE):
            return int(match[1])
    return None


def _needed_libraries(cuda: int) -> list[str]:
    """Name the libraries that ``onnxruntime.preload_dlls`` loads, dependencies first."""
    versions = {
        "cublasLt": cuda,
        "cublas": cuda,
        "nvrtc": cuda,
        "curand": 10,
        "cufft": 11 if cuda < 13 else 12,  # cuFFT has its own version numbers
        "cudart": cuda,
        "cudnn": 9,
    }
    return [f"lib{name}.so.{version}" for name, version in versions.items()]


def _loads(library: str, packages: list[metadata.Distribution]) -> bool:
    files = [file for package in packages for file in package.files or () if file.name == library]
    for path in [*(str(file.locate()) for file in files), library]:
        try:
            ctypes.CDLL(path)
        except OSError:
            continue
        return True
    return False
