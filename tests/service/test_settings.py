"""The settings, read from environment variables as people and tools write them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.settings import Settings


@pytest.mark.parametrize("name", Settings.model_fields)
def test_empty_variable_counts_as_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable leaves the default of each setting."""
    default = Settings()
    monkeypatch.setenv(f"SERVICE_{name.upper()}", "")
    assert Settings() == default


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
