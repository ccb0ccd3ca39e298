"""Own what is found of NVIDIA's driver and libraries, and what onnxruntime wants of them; never loads onnxruntime."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

CUDA_MAJORS = (11, 12, 13)


@dataclass(frozen=True)
class Driver:
    """The driver, the newest CUDA (major, minor) that it can run, and how many GPUs this process may use."""

    cuda: tuple[int, int]
    gpus: int


@dataclass(frozen=True)
class Libraries:
    """The packages of NVIDIA, the CUDA runtimes that load, and which of the wanted libraries do not."""

    packages: tuple[str, ...]
    cudas: tuple[int, ...]
    missing: tuple[str, ...]


def find_driver() -> Driver:
    """Ask the driver.

    Raises:
        OSError: There is none.
    """
    library = ctypes.CDLL("libcuda.so.1")
    version, gpus = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    if library.cuInit(0) == 0:
        library.cuDeviceGetCount(ctypes.byref(gpus))
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus.value)


def find_libraries(cuda: int) -> Libraries:
    """Try to load what onnxruntime's provider for CUDA ``cuda`` (its major version) needs, from pip or the system."""
    packages = [
        package
        for package in metadata.distributions()
        if (package.name or "").startswith("nvidia-")
    ]
    return Libraries(
        packages=tuple(sorted(f"{package.name} {package.version}" for package in packages)),
        cudas=tuple(major for major in CUDA_MAJORS if _loads(f"libcudart.so.{major}", packages)),
        missing=tuple(
            library for library in _wanted_libraries(cuda) if not _loads(library, packages)
        ),
    )


def runtime_packages() -> list[str]:
    """Name the packages that install the module onnxruntime; more than one overwrite each other."""
    return sorted(set(metadata.packages_distributions().get("onnxruntime", ())))


def wanted_cuda() -> int | None:
    """Return the major version of CUDA that onnxruntime was built for, from its files: it may not even load."""
    for name in runtime_packages():
        about = Path(
            str(
                metadata.distribution(name).locate_file(
                    "onnxruntime/capi/build_and_package_info.py"
                )
            )
        )
        if about.exists() and (
            match := re.search(r"^cuda_version = '(\d+)", about.read_text(), re.MULTILINE)
        ):
            return int(match[1])
    return None


def _wanted_libraries(cuda: int) -> list[str]:
    """Name the libraries, each after those that it needs itself; they are those of ``onnxruntime.preload_dlls``."""
    fft = 11 if cuda < 13 else 12  # counts for itself
    versions = {
        "cublasLt": cuda,
        "cublas": cuda,
        "nvrtc": cuda,
        "curand": 10,
        "cufft": fft,
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
