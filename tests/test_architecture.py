"""The shape of the project: which module may import which."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A folder may import only the folders of later rows. A module beside the folders counts as one.
FOLDERS = {
    "service": (
        {"__main__", "offline"},
        {"server"},
        {"app"},
        {"api"},
        {"telemetry"},
        {"inference"},
        {"imaging", "bundle", "machine"},
        {"settings", "errors"},
    ),
    "training": (
        {"__main__"},
        {"export"},
        {"assess"},
        {"fit"},
        {"architectures"},
        {"data"},
        {"plots"},
        {"errors"},
    ),
}
SHARED_WITH_TRAINING = {"service/bundle", "service/imaging", "service/errors"}
# These import no other folder: the client, for example, knows only the HTTP contract.
APART = {"service/__init__", "training/__init__", "service/client"}
# Only these modules and folders of `service` may import the package; an empty set means none may.
OWNERS = {
    "fastapi": {"app", "api", "telemetry/tracing"},
    "starlette": {"app", "api", "telemetry"},
    "uvicorn": {"server"},
    "onnxruntime": {"inference/session"},
    "PIL": {"imaging"},
    "pillow_heif": {"imaging/files"},
    "prometheus_client": {"telemetry/metrics", "telemetry/series"},
    "opentelemetry": {"telemetry/tracing"},
    "python_multipart": {"api/uploads"},
    "httpx2": {"client"},
    "stamina": {"client"},
    "ray": {"offline/cluster"},
    "pyarrow": {"offline"},
    "tensorflow": set(),
    "keras": set(),
    "training": set(),
}
# All other modules get values: Settings and Assignment read the service's environment variables.
# server/environment looks for faults in the variables that Settings does not read.
ENVIRONMENT_USERS = {
    "service/__init__",
    "service/server/assignment",
    "service/server/environment",
    "service/telemetry/tracing",
}


def modules(package: str) -> dict[str, Path]:
    """Map each module of a package, named like ``service/api/limits``, to its file."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).with_suffix("").as_posix(): path for path in files}


def imports(path: Path) -> set[str]:
    """List what a file imports: modules and the names in them, like ``service/api/limits``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.replace(".", "/") for name in found}


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_go_one_way(package: str) -> None:
    """A folder imports only folders of later rows, and every module belongs to a folder."""
    row_of = {
        f"{package}/{folder}": row
        for row, folders in enumerate(FOLDERS[package])
        for folder in folders
    }
    for module, path in modules(package).items():
        folder = "/".join(module.split("/")[:2])
        imported = {"/".join(name.split("/")[:2]) for name in imports(path)}
        others = {name for name in imported if name in row_of.keys() | APART} - {folder}
        if folder in APART:
            assert not others, f"{module} imports {others}"
        else:
            upwards = {other for other in others if row_of.get(other, -1) <= row_of[folder]}
            assert not upwards, f"{module} imports {upwards}"


def test_training_shares_few_folders_with_the_service() -> None:
    """Training imports only the bundle, the image preprocessing and the errors of the service."""
    imported = {name for path in modules("training").values() for name in imports(path)}
    folders = {"/".join(name.split("/")[:2]) for name in imported if name.startswith("service/")}
    assert folders == SHARED_WITH_TRAINING


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_form_no_cycle(package: str) -> None:
    """The imports inside a package form no cycle."""
    files = modules(package)
    TopologicalSorter({m: imports(path) & files.keys() for m, path in files.items()}).prepare()


@pytest.mark.parametrize("package", OWNERS)
def test_heavy_package_is_imported_by_its_owners_only(package: str) -> None:
    """Only the owners of a heavy package import it."""
    owners = {f"service/{owner}" for owner in OWNERS[package]}
    for module, path in modules("service").items():
        if any(name.split("/")[0] == package for name in imports(path)):
            assert any(f"{module}/".startswith(f"{owner}/") for owner in owners), module


def test_few_modules_use_the_environment() -> None:
    """Only the listed modules name ``os.environ`` or ``os.getenv``; the others get values."""
    text = re.compile(r"\bos\.(environ|getenv|putenv)|from os import")
    users = {module for module, path in modules("service").items() if text.search(path.read_text())}
    assert users == ENVIRONMENT_USERS


def test_serving_loads_no_training_package() -> None:
    """The application loads no package of training, of the client or of offline runs."""
    loaded = modules_after("import service.server.worker")
    unwanted = {"tensorflow", "keras", "scipy", "onnx", "httpx2", "typer", "training", "ray"}
    assert not unwanted & loaded


def test_health_probe_is_light() -> None:
    """The health command, run every few seconds, loads no model runtime and no web framework."""
    assert not {"onnxruntime", "numpy", "fastapi", "uvicorn", "PIL"} & modules_after(
        "import service.__main__"
    )


def test_runtime_sends_no_telemetry() -> None:
    """ONNX Runtime's telemetry is off before any part of the service loads it."""
    code = "import service.inference.session, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    environment = {
        key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"
    }
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def modules_after(statement: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after ``statement``."""
    command = [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"]
    return set(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    )
