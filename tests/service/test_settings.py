"""The settings, read from environment variables as people and tools write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


@pytest.mark.parametrize("name", Settings.model_fields)
@pytest.mark.parametrize("value", ["", " ", "\n", "\t \r\n"])
def test_empty_variable_counts_as_unset(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blank variable leaves the default of each setting."""
    default = Settings()
    monkeypatch.setenv(f"SERVICE_{name.upper()}", value)
    assert Settings() == default


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("host", "0.0.0.0\n", "0.0.0.0"),  # noqa: S104  nothing listens
        ("port", " 9000 ", 9000),
        ("device", "CPU", "cpu"),
        ("device", "cpu\n", "cpu"),
        ("log_level", "INFO", "info"),
        ("log_level", "Warning", "warning"),
        ("log_format", "JSON", "json"),
        ("api_keys_file", "/keys\r\n", Path("/keys")),
        ("cors_origins", " https://a.example , https://b.example\n", 2),
    ],
)
def test_case_and_line_breaks_are_forgiven(
    name: str, written: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line break from a file or a Secret, and capitals in a choice, change nothing."""
    monkeypatch.setenv(f"SERVICE_{name.upper()}", written)
    read = getattr(Settings(), name)
    assert (len(read) if name == "cors_origins" else read) == value


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/shop", "/shop"),
        ("shop/", "/shop"),
        ("/a/b-c/", "/a/b-c"),
        ("/", ""),
        (" /shop ", "/shop"),
    ],
)
def test_root_path_is_read_with_and_without_slashes(
    written: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root path begins with one slash and ends with none, however it is written."""
    monkeypatch.setenv("SERVICE_ROOT_PATH", written)
    assert Settings().root_path == path


@pytest.mark.parametrize("written", ["https://example.org/shop", "/a b", "/a?b", "/a//b", '/"><a'])
def test_root_path_that_is_no_path_is_rejected(written: str) -> None:
    """A URL, a query or an unusual character is not a root path."""
    with pytest.raises(ValidationError):
        Settings(root_path=written)
