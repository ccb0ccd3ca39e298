"""A plain install of the package: the client alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {"fastapi", "jax", "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "tensorflow"}


def names(requirements: list[str]) -> set[str]:
    """Return the packages that requirements name."""
    return {re.split(r"[^\w-]", line)[0] for line in requirements}


def test_dependencies_are_what_the_client_imports() -> None:
    """The package depends on every other package that the client imports, and on no more."""
    imported = set()
    for path in (ROOT / "service/client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names - {"service"} == names(PROJECT["dependencies"])


def test_pinned_client_is_light() -> None:
    """`make client` installs no package that serves or trains."""
    lines = (ROOT / "requirements/client.txt").read_text().splitlines()
    pinned = names([line for line in lines if "==" in line])
    assert names(PROJECT["dependencies"]) <= pinned
    assert not pinned & HEAVY


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("serve", ["serve"]),
        ("serve-cuda", ["serve", "cuda", "tracing"]),
        ("all", ["serve", "heic", "jax", "tracing", "training", "test", "dev"]),
    ],
)
def test_pinned_extras_are_complete(file: str, extras: list[str]) -> None:
    """Each file of pinned packages has every package of its extras."""
    wanted = {
        name for extra in extras for name in names(PROJECT["optional-dependencies"][extra])
    } - {PROJECT["name"]}
    lines = (ROOT / f"requirements/{file}.txt").read_text().splitlines()
    assert wanted <= names([line for line in lines if "==" in line])


def test_service_names_the_way_to_install_it(tmp_path: Path) -> None:
    """Where only the client is installed, `python -m service` says how to install the service."""
    (tmp_path / "service").mkdir()
    for name in ("__init__", "__main__"):
        shutil.copy(ROOT / f"service/{name}.py", tmp_path / "service")
    bare = [sys.executable, "-S", "-m", "service", "serve"]  # -S: without site-packages
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the packages of the service are not installed; run `make serve`, or "
        "`pip install '.[serve]'` in the repository\n"
    )
    assert "serve" in PROJECT["optional-dependencies"]
