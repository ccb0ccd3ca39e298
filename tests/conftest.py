"""Fixtures that all tests share."""

from pathlib import Path

import pytest

from tests.service.bundles import write_linear_bundle, write_photo_bundle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests file by file: mutmut names them in any order, and fixtures would start anew."""
    items.sort(key=lambda item: item.path)


@pytest.fixture(scope="session")
def linear_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle of three classes for 20 x 30 images."""
    return write_linear_bundle(tmp_path_factory.mktemp("models") / "linear" / "1").folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle of three colours for 24 x 32 photos."""
    return write_photo_bundle(tmp_path_factory.mktemp("models") / "colours" / "1").folder
