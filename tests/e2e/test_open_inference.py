"""The clients of Triton and KServe get from a real server what /predict answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.e2e.server import ROOT, Server, serving

# Their pins differ from the service's: uv gives each an environment of its own, and keeps it.
CLIENTS = {
    "tritonclient[http]==2.73.0": "tests/e2e/triton_requests.py",
    "kserve==0.21.0": "tests/e2e/kserve_requests.py",
}
INSTALL_SECONDS = 240
FILES = [
    ROOT / "tests/data/faults/photo.png",
    ROOT / "tests/data/faults/exif-rotated.jpg",
    ROOT / "tests/data/fashion-mnist-sample/0008_9.png",
]


def run_with(package: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in an environment that has ``package``."""
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--with", package]
    return subprocess.run(
        [*uv, "--python", sys.executable, "python", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )


@pytest.fixture(scope="module")
def photos(photo_folder: Path) -> Iterator[Server]:
    """A server with a photo model that has every output."""
    with serving(models=photo_folder, device="cpu") as server:
        yield server


def predict(server: Server, paths: list[Path]) -> list[dict[str, Any]]:
    """Return the answers of /predict to files."""
    return [server.predict(path.read_bytes()).json() for path in paths]


def predict_pixels(server: Server) -> list[dict[str, Any]]:
    """Return the answers of /predict/batch to the pixels that the scripts send."""
    pixels = np.zeros((2, 24, 32, 3), np.uint8)
    pixels[1] = 200
    headers = {"Content-Type": "application/octet-stream", "X-Shape": "2,24,32,3"}
    url = f"{server.url}/predict/batch"
    response = httpx2.post(url, content=pixels.tobytes(), headers=headers)
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def assert_same(answer: dict[str, Any], predicted: list[dict[str, Any]]) -> None:
    """Check that the outputs of an answer are those of /predict, bit for bit."""
    assert answer["id"] == "7"
    for name in ("class_id", "class_name", "distance", "in_distribution"):
        assert answer[name] == [each[name] for each in predicted], name
    assert answer["probabilities"] == [list(each["probabilities"].values()) for each in predicted]
    assert np.array(answer["activations"]).shape == (len(predicted), 3, 3, 4)


@pytest.mark.timeout(3 * INSTALL_SECONDS)
@pytest.mark.parametrize(("package", "script"), CLIENTS.items(), ids=["triton", "kserve"])
def test_client_gets_the_answers_of_predict(photos: Server, package: str, script: str) -> None:
    """The client reads health and metadata; pixels and files get the answers of /predict.

    A damaged file gives the client's own exception, with the status and the index.
    """
    if importlib.util.find_spec("uv") is None:
        pytest.skip("uv is not installed")
    ready = run_with(package, "-c", "")  # only installs
    if ready.returncode:
        pytest.skip(f"{package} cannot be installed: {ready.stderr[-300:]}")
    done = run_with(package, script, photos.url, "colours", *map(str, FILES))
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    *healthy, unknown = answers["health"]
    assert all(healthy)
    assert not unknown
    for answer in answers["pixels"]:
        assert_same(answer, predict_pixels(photos))
    assert_same(answers["files"], predict(photos, FILES))
    status, message = answers["error"]
    assert status == "422"
    assert "the image at index 1: the PNG image" in message
