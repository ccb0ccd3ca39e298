"""docs/client.md: the client's options, columns, example and accuracy."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from service.client.run import STATUSES_OF_ONE_IMAGE
from tests.docs.page import BASE_URL, find_blocks, find_code, find_table, read_page
from tests.e2e.server import ROOT, Server
from tests.training.fashion_mnist import fashion_mnist

PAGE = read_page("docs/client.md")


def run_client(*words: object) -> str:
    """Run the client's command and return what it prints."""
    command = [sys.executable, "-m", "service.client", *map(str, words)]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    output = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return output.stdout


def test_options_are_those_of_the_command() -> None:
    """The table of options names every option of the command, and its default."""
    text = run_client("--help")
    rows = {row[0].split(",")[0].strip("`"): row[1] for row in find_table(PAGE, "option")}
    assert rows.keys() == set(re.findall(r"--[a-z-]+", text)) - {"--help"}
    for option, default in rows.items():
        line = next(line for line in text.splitlines() if option in line)
        shown = re.search(r"\[default: ([^\]]+)\]", line)
        assert find_code(default) == ([shown[1]] if shown else [])


def test_columns_are_those_of_the_output(server: Server, tmp_path: Path) -> None:
    """The table of columns names the columns that the client writes."""
    output = tmp_path / "rows.csv"
    image = ROOT / "tests" / "data" / "fashion-mnist-sample" / "0008_9.png"
    run_client(image, "--url", server.url, "--output", output)
    with output.open(newline="") as file:
        columns = next(csv.reader(file))
    named = [name for row in find_table(PAGE, "column") for name in find_code(row[0])]
    assert sorted(named) == sorted(columns)


@pytest.mark.parametrize(
    ("code", "shown"),
    re.findall(r"```python\n(.*?)```\n```\n(.*?)```", PAGE, re.DOTALL),
    ids=["one image", "batch"],
)
def test_library_answers_as_shown(server: Server, code: str, shown: str) -> None:
    """Each Python example prints what is shown below it."""
    command = [sys.executable, "-c", code.replace(BASE_URL, server.url)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout == shown


def test_statuses_that_do_not_stop_the_client_are_those_of_the_code() -> None:
    """The page names the statuses of 4xx after which the client goes on."""
    (row,) = [row for row in find_table(PAGE, "answer") if row[0].startswith("every other 4xx")]
    assert {int(number) for number in re.findall(r"\d{3}", row[0])} == STATUSES_OF_ONE_IMAGE


def test_accuracy_is_the_measured_one(server: Server, tmp_path: Path) -> None:
    """1,000 test images in folders by class give the summary that the page shows."""
    test_set = fashion_mnist().test()
    pairs = zip(test_set.images[:1000], test_set.labels[:1000], strict=True)
    for number, (image, label) in enumerate(pairs):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:04}.png")
    options = "--url", server.url, "--labels-from-folders", "--output", tmp_path / "results.csv"
    _, total, rest = run_client(tmp_path, *options).partition("1000 images: 1000 classified")
    assert total + rest in find_blocks(PAGE, "")
