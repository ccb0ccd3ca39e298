"""docs/api.md: examples, fields, errors, formats, limits and headers as the service has them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from service.api.keys import new_key
from service.api.problems import TABLE
from service.app import create_app
from service.bundle import newest_version
from service.imaging.files import FORMATS, PIXEL_WEIGHTS
from service.settings import Settings
from tests.docs.page import (
    BASE_URL,
    Example,
    differences,
    find_blocks,
    find_code,
    find_examples,
    find_table,
    read_page,
)
from tests.e2e.server import ROOT, Server, serving
from tests.service.images import fault

PAGE = read_page("docs/api.md")
# Problems that are not in TABLE: those of HTTP, and the unexpected error.
OTHER_PROBLEMS = {
    ("malformed-request", 400),
    ("not-found", 404),
    ("method-not-allowed", 405),
    ("head-too-large", 431),
    ("internal-error", 500),
}


@pytest.mark.parametrize("example", find_examples("docs/api.md"), ids=lambda e: e.command)
def test_service_answers_as_shown(server: Server, example: Example) -> None:
    """Every command of the page gets the JSON that is shown below it."""
    assert differences(example.answer, example.run(server.url)) == []


@pytest.mark.parametrize("block", find_blocks(PAGE, "sh")[1:], ids=["numpy", "raw"])
def test_tensors_are_answered(server: Server, tmp_path: Path, block: str) -> None:
    """Each way to send a tensor of three images gets three predictions."""
    changed = block.replace(BASE_URL, server.url).replace("/tmp/", f"{tmp_path}/")  # noqa: S108
    changed = changed.replace(".venv/bin/python", sys.executable).replace("curl", "curl -sS")
    output = subprocess.run(["bash", "-ec", changed], cwd=ROOT, capture_output=True, check=True)
    assert len(json.loads(output.stdout)["predictions"]) == 3


def test_file_from_a_url_is_answered(server: Server) -> None:
    """The command for a file that comes from a URL gets a prediction."""
    handler = partial(SimpleHTTPRequestHandler, directory=ROOT / "tests/data/faults")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as shop:
        threading.Thread(target=shop.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{shop.server_address[1]}/exif-rotated.jpg"
        command = find_blocks(PAGE, "sh")[0].replace("https://shop.example/boot.jpg", url)
        command = command.replace(BASE_URL, server.url).replace("curl -F", "curl -sS -F")
        output = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
        shop.shutdown()
    assert json.loads(output.stdout)["class_name"] == "Ankle boot"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_javascript_gets_answers_and_errors(server: Server) -> None:
    """The JavaScript function returns the answer, and throws the title and detail of an error."""
    (code,) = find_blocks(PAGE, "js")
    calls = """
        const fs = require("fs");
        const read = name => new Blob([fs.readFileSync(`tests/data/faults/${name}`)]);
        classify(read("exif-rotated.jpg"))
          .then(answer => console.log(answer.class_name))
          .then(() => classify(read("truncated.jpg")))
          .catch(error => console.log(error.message));
    """
    script = code.replace(BASE_URL, server.url) + calls
    output = subprocess.run(["node", "-"], input=script, cwd=ROOT, stdout=-1, text=True, check=True)
    name, error = output.stdout.splitlines()
    assert name == "Ankle boot"
    assert error.startswith("Unreadable image: the JPEG image is incomplete")


def test_uncertainty_is_the_measured_one() -> None:
    """The figures on prediction sets are in the card of the model for photos."""
    section = PAGE.split("## How sure is the answer?")[1].split("\n## ")[0]
    figures = re.findall(r"(\d+\.\d+)(?= %| classes)", section)
    assert len(figures) == 2
    card = (newest_version(Settings().models[1]) / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert [figure for figure in figures if figure not in card] == []


def document() -> dict[str, Any]:
    """Return the service's OpenAPI document."""
    return create_app(Settings()).openapi()


@pytest.mark.parametrize(
    ("heading", "number", "schema"), [("field", 0, "Prediction"), ("field", 1, "Explanation")]
)
def test_fields_are_those_of_the_schema(heading: str, number: int, schema: str) -> None:
    """The tables of fields name every field of an answer and of its explanation, and no other."""
    page = PAGE.split(f"| {heading} |", number + 1)[-1]
    rows = find_table(f"| {heading} |{page}", heading)
    assert {row[0].strip("`") for row in rows} == set(
        document()["components"]["schemas"][schema]["properties"]
    )


def test_parameters_are_those_of_the_route() -> None:
    """The table of query parameters names every parameter of /predict, and no other."""
    parameters = document()["paths"]["/predict"]["post"]["parameters"]
    rows = find_table(PAGE, "parameter")
    assert {row[0].strip("`") for row in rows} == {parameter["name"] for parameter in parameters}


def test_problems_are_those_of_the_service() -> None:
    """The table of errors names every problem with its status, and no other."""
    rows = {(row[0].strip("`"), int(row[1])) for row in find_table(PAGE, "name")}
    assert rows == {(name, status) for status, name in TABLE.values()} | OTHER_PROBLEMS


def test_limits_are_the_defaults() -> None:
    """Each limit that a variable sets has the default value of that setting."""
    rows = [row for row in find_table(PAGE, "limit") if row[2]]
    assert rows
    for _, default, variable in rows:
        name = variable.strip("`").removeprefix("SERVICE_").lower()
        assert float(default.replace(",", "")) == getattr(Settings(), name)


def test_weights_of_pixels_are_those_of_the_service() -> None:
    """The table names each format with its weight, and the most pixels that follow from it."""
    rows = find_table(PAGE, "format")
    weights = {name: int(row[1]) for row in rows for name in row[0].split(", ")}
    assert weights == dict.fromkeys(FORMATS, 1) | PIXEL_WEIGHTS
    for _, weight, most in rows:
        assert int(most.replace(",", "")) == Settings().max_image_pixels // int(weight)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *((name, 200) for name in ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF")),
        ("TIFF", 422),
        ("ICO", 422),
    ],
)
def test_formats_are_read_as_stated(server: Server, name: str, status: int) -> None:
    """The formats that the page names are read, TIFF and others are not."""
    buffer = BytesIO()
    Image.open(BytesIO(fault("photo.png"))).convert("RGB").save(buffer, name)
    assert server.predict(buffer.getvalue()).status_code == status


def test_headers_are_sent(server: Server, tmp_path: Path) -> None:
    """Each answer header of the table is in at least one answer."""
    key, line = new_key("caller")
    file = tmp_path / "keys.txt"
    file.write_text(line + "\n")
    image = {"file": fault("photo.png")}
    answers = [server.predict(image["file"])]
    pixels = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}
    request = {"inputs": [pixels], "parameters": {"binary_data_output": True}}
    answers.append(httpx2.post(f"{server.url}/v2/models/resnet-8/infer", json=request))
    with serving(device="cpu", api_keys_file=file, rate_limit_per_minute=1) as strict:
        for headers in ({}, {"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            answers.append(httpx2.post(f"{strict.url}/predict", files=image, headers=headers))
    assert [answer.status_code for answer in answers] == [200, 200, 401, 200, 429]
    rows = [row for row in find_table(PAGE, "header") if row[1] == "answer"]
    named = {name.lower() for row in rows for name in find_code(row[0])}
    assert named <= {name.lower() for answer in answers for name in answer.headers}


def test_snapshot_is_current() -> None:
    """docs/openapi.json is the document of the application; `make openapi` writes it."""
    assert json.loads(read_page("docs/openapi.json")) == document()
