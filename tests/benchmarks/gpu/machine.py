"""What the machine is: processor, GPU, driver, libraries, and the doctor's opinion."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import onnxruntime
import psutil

from service.machine import nvidia
from tests.e2e.server import ROOT

Report = dict[str, Any]


def describe_machine(device: str) -> Report:
    """Name the processor, the GPU, the driver and the libraries."""
    report: Report = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "onnxruntime": onnxruntime.__version__,
        "available_providers": onnxruntime.get_available_providers(),
        "built_for_cuda": nvidia.needed_cuda(),
        "gpu": nvidia_smi("name,memory.total,driver_version"),
    }
    if device == "cuda":
        report["driver"] = str(nvidia.find_driver())
    return report


def ask_doctor(device: str) -> Report:
    """Keep the doctor's page and its exit code."""
    command = [sys.executable, "-m", "service", "doctor"]
    environment = os.environ | {"SERVICE_DEVICE": device, "SERVICE_PORT": "0"}
    page = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return {"exit_code": page.returncode, "page": page.stdout.splitlines()}


def memory_mib(device: str) -> float:
    """Return the memory in use: the GPU's, or this process's own on the CPU."""
    if device == "cuda":
        return float(nvidia_smi("memory.used").split()[0])
    resident: float = psutil.Process().memory_info().rss / 2**20
    return round(resident, 1)


def nvidia_smi(query: str) -> str:
    """Ask the driver's tool; return an empty text where there is none."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
