"""What the README shows, done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.bundle import read_bundle
from service.settings import Settings
from tests.e2e.server import ROOT, Server, serving
from tests.training.fashion_mnist import fashion_mnist

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Server of the shipped model."""
    with serving(device="cpu") as running:
        yield running


def test_curl_shows_what_the_readme_shows(server: Server) -> None:
    """The README's first command gets the answer that is printed below it."""
    pattern = r"\$ curl -F file=@(\S+) 'http://127.0.0.1:8000(\S+)'\n```\n```json\n(.*?)```"
    command = re.search(pattern, README, re.DOTALL)
    assert command is not None
    form = ["-F", f"file=@{command[1]}"]
    output = subprocess.run(
        ["curl", "-s", *form, server.url + command[2]], cwd=ROOT, capture_output=True, check=True
    )
    answer, shown = json.loads(output.stdout), json.loads(command[3])
    assert answer["probabilities"] == pytest.approx(shown["probabilities"], abs=1e-5)
    assert (answer["class_name"], answer["model"]) == (shown["class_name"], shown["model"])


def test_accuracy_is_the_one_that_was_measured() -> None:
    """The README tells the accuracy that the shipped bundle's manifest holds."""
    metrics = read_bundle(Settings().model).manifest.metrics["test"]
    low, high = metrics["wilson_95"]
    assert f"**{metrics['accuracy']:.2%} accuracy**" in README
    assert f"(95 % interval {low:.2%} to {high:.2%})" in README


def test_client_measures_the_accuracy_that_the_readme_shows(server: Server, tmp_path: Path) -> None:
    """The batch client over 1,000 test images, in folders by class, ends with the summary that the README shows."""
    test_set = fashion_mnist().test()
    for number, (image, label) in enumerate(
        zip(test_set.images[:1000], test_set.labels[:1000], strict=True)
    ):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:04}.png")
    command = [
        sys.executable,
        "-m",
        "service.client",
        tmp_path,
        "--url",
        server.url,
        "--labels-from-folders",
    ]
    output = subprocess.run(
        [*map(str, command), "--output", tmp_path / "results.csv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    summary = "\n".join(output.stdout.strip().splitlines()[-2:])
    assert summary.startswith("1000 images: 1000 classified, 0 failed\naccuracy: ")
    assert summary in README
