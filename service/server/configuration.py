"""Reads the settings from options, environment variables and a TOML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from service.errors import SettingsError
from service.server.environment import PREFIX, describe_invalid, suggest
from service.settings import Settings


@dataclass(frozen=True)
class Configuration:
    """The settings, and where each value that is not a default comes from.

    ``origins`` maps a setting's name to an option, a variable or a file, such as ``--port``.
    """

    settings: Settings
    origins: Mapping[str, str]


def read_configuration(options: Mapping[str, str]) -> Configuration:
    """Read the settings: options go before variables, and variables before the file.

    Raises:
        SettingsError: The file cannot be read, one of its keys is not a setting, or a value is not
            valid. The message has one line for each fault.
    """
    variables = _drop_blank(EnvSettingsSource(Settings)())
    options = _drop_blank(options)
    file = options.get("config") or variables.get("config")
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}
    if file:
        read = _read_file(Path(file))
        values |= read
        origins |= {name: f"{name} in {file}" for name in read}
    values |= variables
    origins |= {name: f"{PREFIX}{name}".upper() for name in variables}
    values |= options
    origins |= {name: name_option(name) for name in options}
    try:
        return Configuration(Settings(**values), origins)
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(error, origins))) from error


def name_option(name: str) -> str:
    """Return the option of a setting, such as ``--log-level``."""
    return "--" + name.replace("_", "-")


def _drop_blank(values: Mapping[str, Any]) -> dict[str, Any]:
    # Docker Compose passes unset variables on as empty, which must not hide a value of the file.
    return {
        name: value
        for name, value in values.items()
        if not (isinstance(value, str) and not value.strip())
    }


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise SettingsError(f"{path} is not a file; name a TOML file with settings")
        values = TomlConfigSettingsSource(Settings, path).toml_data
    except (OSError, ValueError) as error:  # a TOML or Unicode error is a ValueError
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from error
    fields = Settings.model_fields.items()
    known = [name for name, field in fields if field.description and name != "config"]
    if unknown := [name for name in values if name not in known]:
        lines = (f"{name} in {path} is not a setting; {suggest(name, known)}" for name in unknown)
        raise SettingsError("\n".join(lines))
    return _drop_blank(values)


def _describe(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    for fault in error.errors():
        yield describe_invalid(origins[str(fault["loc"][0])], fault["input"], fault["msg"])
