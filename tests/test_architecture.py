"""The shape of the project: which module may import which, and that its documents tell the truth."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[1]

# Each module may import those of later rows, and of its own row none; the routes stand for one.
LAYERS = (
    {"__main__"},
    {"supervisor"},
    {"doctor", "server"},
    {"app", "protocol"},
    {"routes"},
    {"access", "limits"},
    {"quota", "telemetry"},
    {"problems", "uploads"},
    {"schemas", "predictor"},
    {"decoding"},
    {"batching", "classifier", "imaging", "tensors"},
    {"bundle", "item", "keys", "listening", "neighbours", "screening", "sizing", "tracing"},
    {"errors", "nvidia", "resources", "settings"},
)
OWNERS = {
    "fastapi": {"app", "access", "routes", "problems", "tracing"},
    "starlette": {
        "app",
        "access",
        "routes",
        "problems",
        "limits",
        "quota",
        "telemetry",
        "tracing",
        "uploads",
    },
    "uvicorn": {"protocol", "server"},
    "onnxruntime": {"classifier"},
    "PIL": {"imaging"},
    "prometheus_client": {"telemetry"},
    "opentelemetry": {"tracing"},
    "python_multipart": {"uploads"},
    "httpx": {"client"},
    "tensorflow": set(),
    "keras": set(),
    "training": set(),
}


def service_modules() -> list[tuple[str, Path]]:
    """List every file of the service with the module that the rules know it by."""
    files = sorted((ROOT / "service").rglob("*.py"))
    return [
        (path.relative_to(ROOT / "service").parts[0].removesuffix(".py"), path) for path in files
    ]


def imports(path: Path) -> set[str]:
    """Name everything that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("name", "path"), service_modules(), ids=lambda value: str(value)[-24:])
def test_imports_go_one_way(name: str, path: Path) -> None:
    """A module of the service imports only modules of lower layers, and the client none at all."""
    layer = {module: row for row, modules in enumerate(LAYERS) for module in modules}
    for imported in imports(path):
        package, _, rest = imported.partition(".")
        module = rest.split(".")[0]
        if package == "service" and module in layer and module != name:
            assert name in layer, f"{name} imports service.{module}"
            assert layer[name] < layer[module], f"{name} imports service.{module}"


@pytest.mark.parametrize("package", OWNERS)
def test_heavy_package_has_its_owners(package: str) -> None:
    """Each heavy package is imported by its owners alone."""
    users = {
        name
        for name, path in service_modules()
        if any(i.split(".")[0] == package for i in imports(path))
    }
    assert users <= OWNERS[package]


def test_every_module_of_the_service_has_a_layer() -> None:
    """No module escapes the rule on imports."""
    assert {name for name, _ in service_modules()} == set().union(*LAYERS) | {"__init__", "client"}


def test_serving_loads_no_training_package() -> None:
    """The application runs without TensorFlow, Keras, SciPy and the client's packages being loaded."""
    loaded = modules_after("import service.server")
    assert not {"tensorflow", "keras", "scipy", "onnx", "httpx", "typer", "training"} & loaded


def test_health_probe_is_light() -> None:
    """The command that a container runs every few seconds loads no model runtime and no web framework."""
    assert not {"onnxruntime", "numpy", "fastapi", "uvicorn", "PIL"} & modules_after(
        "import service.__main__"
    )


def test_runtime_does_not_report_home() -> None:
    """ONNX Runtime's telemetry is off by the time it is loaded, whatever part of the service loads it."""
    code = "import service.classifier, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    environment = {
        key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"
    }
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def modules_after(statement: str) -> set[str]:
    """Name the modules that a new interpreter has loaded after ``statement``."""
    command = [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"]
    return set(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    )


def test_openapi_snapshot_is_current() -> None:
    """docs/openapi.json is what the application serves; `make openapi` writes it anew."""
    assert (
        json.loads((ROOT / "docs" / "openapi.json").read_text()) == create_app(Settings()).openapi()
    )


def test_readme_lists_every_setting_with_its_default() -> None:
    """The README's table of settings has each of Settings' fields with its default and description, and no other."""
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `SERVICE_")]
    assert rows == [settings_row(name) for name in Settings.model_fields]


def settings_row(name: str) -> str:
    """Render the README's row for a setting."""
    field = Settings.model_fields[name]
    default = field.default
    if isinstance(default, Path):
        default = default.relative_to(ROOT).as_posix()
    return f"| `SERVICE_{name.upper()}` | {'' if default in (None, ()) else f'`{default}`'} | {field.description} |"
