"""`python -m service doctor`: whether the service can run on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.api.keys import new_key
from service.bundle import MODEL_FILE
from service.server.doctor import doctor
from service.settings import Settings
from tests.service.bundles import write_linear_bundle
from tests.service.machine.test_resources import write_machine

ROOT = Path(__file__).parents[3]
TOPICS = [
    "python",
    "settings",
    "runtime",
    "model",
    "session",
    "driver",
    "cuda",
    "address",
    "access",
    "limits",
    "cores",
    "memory",
]


def run_doctor(*, packages: Path | None = None, **settings: object) -> tuple[dict[str, str], int]:
    """Run the command; return its lines by topic, and its exit code.

    A line has the level, the text and the remedy. ``packages`` is a folder that Python searches
    before the installed packages. GPUs are hidden.
    """
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("SERVICE_")
    }
    environment |= {f"SERVICE_{key.upper()}": str(value) for key, value in settings.items()}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(packages or "")}
    command = [sys.executable, "-m", "service", "doctor"]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in run.stdout + run.stderr
    page, verdict = run.stdout.rstrip().rsplit("\n\n", 1)
    can_run = "can run" if run.returncode == 0 else "cannot run"
    assert verdict.startswith(f"The service {can_run}"), run.stdout
    lines = page.replace("\n                 -> ", " -> ").splitlines()
    found = {line[6:17].strip(): f"{line[:6].strip()} {line[17:]}" for line in lines}
    assert list(found) == TOPICS
    return found, run.returncode


def metadata_of(name: str, version: str) -> str:
    """Return the text of an installed package's METADATA file."""
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"


def test_good_configuration_can_run(linear_folder: Path) -> None:
    """With a good bundle on the CPU, all lines that do not depend on the machine are ok.

    The page names the model, the provider and the limits.
    """
    found, code = run_doctor(models=linear_folder, device="cpu")
    assert code == 0
    depends_on_machine = {"address", "cores", "memory"}
    levels = {found[topic].split()[0] for topic in found.keys() - depends_on_machine}
    assert levels == {"ok"}
    assert "linear version 1, 3 classes" in found["model"]
    assert "2 files verified" in found["model"]
    assert "providers in use: CPUExecutionProvider" in found["session"]
    assert "max_upload_bytes=10485760" in found["limits"]


def test_missing_gpu_is_reported_with_a_remedy(linear_folder: Path) -> None:
    """Without a GPU, the service cannot run with `cuda`; with `auto`, it can, with a warning."""
    found, code = run_doctor(models=linear_folder, device="cuda")
    assert code == 1
    assert found["session"].startswith("fail")
    assert found["driver"].startswith("warn")
    assert "--gpus all" in found["driver"]
    found, code = run_doctor(models=linear_folder, device="auto")
    assert code == 0
    assert found["session"].startswith("warn")


def test_corrupt_bundle_cannot_run(tmp_path: Path) -> None:
    """A damaged model file fails the check and is named; the other checks still run."""
    path = write_linear_bundle(tmp_path / "linear").folder / MODEL_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    found, code = run_doctor(models=tmp_path / "linear", device="cpu")
    assert code == 1
    assert found["model"].startswith("fail")
    assert MODEL_FILE in found["model"]
    assert found["limits"].startswith("ok")


def test_incomplete_newer_version_is_a_warning(tmp_path: Path) -> None:
    """The complete version passes, and the line names what the newer version lacks."""
    for version in ("1", "2"):
        write_linear_bundle(tmp_path / "linear" / version, version=version)
    (tmp_path / "linear" / "2" / MODEL_FILE).unlink()
    found, code = run_doctor(models=tmp_path / "linear", device="cpu")
    assert code == 0
    assert found["model"].startswith("warn")
    assert "linear version 1" in found["model"]
    assert str(tmp_path / "linear" / "2" / MODEL_FILE) in found["model"]
    assert found["session"].startswith("ok")


def test_every_model_is_checked(linear_folder: Path, photo_folder: Path) -> None:
    """Each model has a line for its bundle and one for its session."""
    page, can_run = doctor(Settings(models=(linear_folder, photo_folder), device="cpu"))
    assert can_run
    assert "linear version 1, 3 classes" in page
    assert "colours version 1, 3 classes" in page
    assert "linear: self-test passed" in page
    assert "colours: self-test passed" in page


def test_two_models_of_one_name_cannot_run(tmp_path: Path, linear_folder: Path) -> None:
    """Two models of the same name fail the check; the line names both folders."""
    other = write_linear_bundle(tmp_path / "other", version="2").folder
    page, can_run = doctor(Settings(models=(linear_folder, other), device="cpu"))
    assert not can_run
    assert f"{linear_folder} and {other} both hold a model called linear" in page
    assert "remove one of the folders from SERVICE_MODELS" in page


def test_two_packages_of_onnxruntime_are_found(tmp_path: Path, linear_folder: Path) -> None:
    """Two packages that install the module onnxruntime are a failure; the remedy is a command."""
    write_machine(
        tmp_path,
        {
            "onnxruntime_other-1.2.dist-info/METADATA": metadata_of("onnxruntime-other", "1.2"),
            "onnxruntime_other-1.2.dist-info/top_level.txt": "onnxruntime",
        },
    )
    found, code = run_doctor(packages=tmp_path, models=linear_folder, device="cpu")
    assert code == 1
    assert found["runtime"].startswith("fail")
    assert "onnxruntime-other 1.2" in found["runtime"]
    assert "-> pip uninstall --yes onnxruntime" in found["runtime"]


def test_broken_runtime_is_a_finding(tmp_path: Path, linear_folder: Path) -> None:
    """If onnxruntime cannot be imported, only the session fails; there is no traceback."""
    write_machine(tmp_path, {"onnxruntime.py": "raise ImportError('libsomething.so is missing')"})
    found, code = run_doctor(packages=tmp_path, models=linear_folder, device="cpu")
    assert code == 1
    assert found["session"].startswith("fail")
    assert "libsomething.so is missing" in found["session"]
    assert found["model"].startswith("ok")


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("onnxruntime-gpu", "12.8", "CUDA 12"),
        ("onnxruntime-gpu", "13.0", "CUDA 13"),
        ("onnxruntime", "", "the CPU"),
    ],
)
def test_runtime_says_which_cuda_it_was_built_for(
    tmp_path: Path, linear_folder: Path, name: str, version: str, text: str
) -> None:
    """The CUDA version that onnxruntime needs is read from its files and printed."""
    build = f"package_name = '{name}'\ncuda_version = '{version}'"
    write_machine(
        tmp_path,
        {
            "onnxruntime_gpu-9.0.dist-info/METADATA": metadata_of("onnxruntime-gpu", "9.0"),
            "onnxruntime_gpu-9.0.dist-info/top_level.txt": "onnxruntime",
            "onnxruntime/capi/build_and_package_info.py": build,
        },
    )
    found, _ = run_doctor(packages=tmp_path, models=linear_folder, device="auto")
    assert text in found["runtime"]
    assert text.replace("the CPU", "built for the CPU") in found["cuda"]


def test_broken_file_of_keys_cannot_run(tmp_path: Path, linear_folder: Path) -> None:
    """The doctor reads the file of API keys as the service does."""
    path = tmp_path / "keys"
    path.write_text(new_key("alice")[1])
    assert run_doctor(models=linear_folder, device="cpu", api_keys_file=path)[1] == 0
    path.write_text("alice")
    found, code = run_doctor(models=linear_folder, device="cpu", api_keys_file=path)
    assert code == 1
    assert "line 1" in found["access"]


def test_quota_of_the_container_is_compared_with_the_settings(
    tmp_path: Path, linear_folder: Path
) -> None:
    """More threads than the quota allows, and too little memory for uploads, are warnings."""
    root = write_machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1",
            "sys/fs/cgroup/cpu.max": "100000 100000",
            "sys/fs/cgroup/memory.max": "268435456",
        },
    )
    page, can_run = doctor(Settings(models=(linear_folder,), device="cpu", threads=4), root)
    assert can_run
    assert "warn  cores      1; container quota: 1.0" in page
    assert "SERVICE_THREADS=1" in page
    assert "warn  memory     container limit: 256 MiB; needed at most: 2172 MiB" in page
    assert "Module  580.1" in page
    small = Settings(
        models=(linear_folder,), device="cpu", max_image_pixels=10**6, max_bytes_in_flight=4 * 10**7
    )
    page, can_run = doctor(small, root)
    assert can_run
    assert "warn" not in page


def test_service_cannot_run_on_a_taken_port(linear_folder: Path) -> None:
    """A taken port is a failure, as in `serve`; the line says what to set."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found, code = run_doctor(
            models=linear_folder, device="cpu", port=listening.getsockname()[1]
        )
    assert code == 1
    assert found["address"].startswith("fail")
    assert "set another SERVICE_PORT" in found["address"]


def test_page_says_where_each_setting_comes_from(linear_folder: Path, tmp_path: Path) -> None:
    """The line of the settings has each value that is not a default, and its variable or file."""
    file = tmp_path / "service.toml"
    file.write_text('device = "cpu"')
    found, _ = run_doctor(config=file, models=linear_folder)
    assert f"models={linear_folder} (from SERVICE_MODELS)" in found["settings"]
    assert f"device=cpu (from device in {file})" in found["settings"]
    assert found["settings"].endswith("all others are defaults")


def test_misspelt_variable_is_named() -> None:
    """A variable that is not a setting is a warning with the nearest setting."""
    found, exit_code = run_doctor(device="cpu", workres=2)
    assert found["settings"].startswith("warn SERVICE_WORKRES is not a setting")
    assert "did you mean SERVICE_WORKERS?" in found["settings"]
    assert exit_code == 0
