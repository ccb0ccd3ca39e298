"""The settings from options, variables and a TOML file, and where each value comes from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.server.configuration import read_configuration
from service.settings import Settings
from tests.e2e.server import ROOT


def write(folder: Path, text: str) -> str:
    """Write a file of settings and return its path."""
    path = folder / "service.toml"
    path.write_text(text)
    return str(path)


def test_options_go_before_variables_and_variables_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting has the value of the first place that sets it, and this place is named."""
    file = write(tmp_path, 'port = 1\nworkers = 1\nthreads = 1\ndevice = "CPU"')
    monkeypatch.setenv("SERVICE_PORT", "2")
    monkeypatch.setenv("SERVICE_WORKERS", "2")
    monkeypatch.setenv("SERVICE_DEVICE", " ")
    read = read_configuration({"config": file, "port": "3", "log_level": ""})
    settings = read.settings
    assert (settings.port, settings.workers, settings.threads) == (3, 2, 1)
    assert (settings.device, settings.log_level) == ("cpu", "info")
    assert read.origins == {
        "config": "--config",
        "port": "--port",
        "workers": "SERVICE_WORKERS",
        "threads": f"threads in {file}",
        "device": f"device in {file}",
    }


def test_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SERVICE_CONFIG names the file as the option does; its lists are lists or texts."""
    origins = '["https://a.example", "https://b.example"]'
    file = write(tmp_path, f'models = "a, b"\ncors_origins = {origins}\nlog_client_address = true')
    monkeypatch.setenv("SERVICE_CONFIG", file)
    settings = read_configuration({}).settings
    assert settings.models == (Path("a"), Path("b"))
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.log_client_address is True


def test_every_setting_has_an_option() -> None:
    """`serve --help` lists an option for each setting that has a description."""
    command = [sys.executable, "-m", "service", "serve", "--help"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    fields = Settings.model_fields.items()
    options = {"--" + name.replace("_", "-") for name, field in fields if field.description}
    assert options <= set(run.stdout.split())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("workres = 2", "workres in {file} is not a setting; did you mean workers?"),
        ("qqqqqqqq = 2", "qqqqqqqq in {file} is not a setting; docs/settings.md lists"),
        ("[service]\nport = 1", "service in {file} is not a setting"),
        ('config = "other.toml"', "config in {file} is not a setting; docs/settings.md lists"),
        ('_env_file = "other"', "_env_file in {file} is not a setting"),
        ('model = "models/x"', "model in {file} is not a setting; did you mean models?"),
        ('port = "x"', "port in {file}=x: Input should be a valid integer"),
        ('models = ["a"]\nport = 70000', "port in {file}=70000: Input should be less than"),
        ('cors_origins = ["example.org"]', "cors_origins in {file}=example.org: "),
        ("port = ", "{file} cannot be read as TOML: "),
    ],
)
def test_fault_in_the_file_names_file_and_key(tmp_path: Path, text: str, fault: str) -> None:
    """A key that is not a setting, a wrong value and damaged TOML are errors that say where."""
    file = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_configuration({"config": file})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(fault.format(file=file))


def test_every_fault_has_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults of an option, a variable and the file are all reported, each with its place."""
    file = write(tmp_path, "threads = 0")
    monkeypatch.setenv("SERVICE_WORKERS", "0")
    with pytest.raises(SettingsError) as caught:
        read_configuration({"config": file, "port": "x"})
    lines = str(caught.value).splitlines()
    starts = ("--port=x: ", f"threads in {file}=0: ", "SERVICE_WORKERS=0: ")
    assert [line for line in lines if not line.startswith(starts)] == []
    assert len(lines) == len(starts)


@pytest.mark.parametrize("name", ["missing.toml", ""])
def test_file_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    """A missing file and a folder are errors that name the path."""
    with pytest.raises(SettingsError, match=f"{tmp_path / name} is not a file"):
        read_configuration({"config": str(tmp_path / name)})


def test_command_with_a_wrong_setting_exits_with_2(tmp_path: Path) -> None:
    """A wrong value in the file is one line on standard error, and the exit code is 2."""
    file = write(tmp_path, "port = 70000")
    command = [sys.executable, "-m", "service", "serve", "--config", file]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"port in {file}=70000: ")
    assert len(run.stderr.splitlines()) == 1
