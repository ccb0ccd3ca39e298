"""The command line: real processes against a scripted HTTP server and the real service."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from service.app import create_app
from service.client import Client, Prediction, ProblemError
from service.client.rows import read_rows
from service.settings import Settings
from tests.service.client.scripted_server import CLASSES, ScriptedServer, running, unused_url

ROOT = Path(__file__).parents[3]
MISSING = (
    "the client needs packages that are not installed: httpx2, rich, stamina, typer. "
    "Run: pip install httpx2 rich stamina typer"
)


def command(*arguments: object) -> list[str]:
    """Return the command line of the client."""
    return [sys.executable, "-m", "service.client", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the client's command line to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def read(output: Path) -> dict[str, dict[str, Any]]:
    """Read an output with csv or json; return rows by file name. No name may occur twice."""
    with output.open(newline="") as file:
        is_csv = output.suffix == ".csv"
        rows = list(csv.DictReader(file)) if is_csv else [json.loads(line) for line in file]
    by_name = {Path(row["path"]).name: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


@pytest.fixture(params=[".csv", ".jsonl"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Path of an output, in both formats."""
    return tmp_path / f"results{request.param}"


def test_all_answered(server: ScriptedServer, images: Path, output: Path) -> None:
    """Every row has all probabilities, the summary counts classes, and the exit code is 0."""
    done = run(images, "--url", server.url, "--output", output)
    assert done.returncode == 0, done.stderr
    rows = read(output)
    names = {name: row["class_name"] for name, row in rows.items()}
    assert names == dict(zip(("a.png", "b.JPG", "c.webp"), CLASSES, strict=True))
    bag = rows["c.webp"]
    probabilities = bag["probabilities"]
    probabilities = json.loads(probabilities) if output.suffix == ".csv" else probabilities
    assert probabilities == {CLASSES[0]: 0.05, CLASSES[1]: 0.05, CLASSES[2]: 0.9}
    assert (int(bag["class_id"]), float(bag["probability"])) == (2, 0.9)
    assert bag["model"] == "scripted/7"
    assert "3 images: 3 classified, 0 failed" in done.stdout
    assert "accuracy" not in done.stdout
    assert all(name in done.stdout for name in CLASSES)
    assert "3/3" in done.stderr
    assert "images/s" in done.stderr


def test_failures_are_rows(server: ScriptedServer, images: Path, output: Path) -> None:
    """A failed image has a row with its problem, others have answers, and the exit code is 1."""
    for name in ("page", "drop"):
        (images / f"{name}.png").write_text(name)
    options = "--url", server.url, "--output", output, "--retries", 0
    done = run(images, images / "notes.txt", *options)
    assert done.returncode == 1, done.stderr
    rows = read(output)
    assert len(rows) == 6
    assert {name: row["error_type"] for name, row in rows.items() if row["error_type"]} == {
        "page.png": "about:blank",
        "drop.png": "client:no-answer",
        "notes.txt": "/problems/422",
    }
    rejected = rows["notes.txt"]
    problem = rejected["error_title"], rejected["error_detail"], rejected["request_id"]
    assert problem == ("Title 422", "the detail", "r-1")
    assert "6 images: 3 classified, 3 failed" in done.stdout
    assert "1 x Title 422" in done.stdout


def test_retries_are_silent(server: ScriptedServer, images: Path, output: Path) -> None:
    """A retry prints nothing: stderr has only the progress bar."""
    (images / "a.png").write_text("503 after 0;200 0")
    done = run(images / "a.png", "--url", server.url, "--output", output)
    assert done.returncode == 0, done.stderr
    assert len(server.headers) == 2
    assert "stamina" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_resume_after_a_kill(server: ScriptedServer, images: Path, output: Path) -> None:
    """After a cut in the last row, only its image and the failed image are sent again."""
    (images / "busy.png").write_text("422;200 0")
    options = images, "--url", server.url, "--output", output, "--concurrency", 1
    assert run(*options).returncode == 1
    output.write_bytes(output.read_bytes()[:-9])  # cuts the last row, of deeper/c.webp
    done = run(*options, "--resume")
    assert done.returncode == 0, done.stderr
    class_ids = {name: int(row["class_id"]) for name, row in read(output).items()}
    assert class_ids == {"a.png": 0, "b.JPG": 1, "busy.png": 0, "c.webp": 2}
    assert {body: len(times) for body, times in server.arrivals.items()} == {
        b"200 0": 1,
        b"200 1": 1,
        b"422;200 0": 2,
        b"200 2": 2,
    }
    assert "4 images: 4 classified, 0 failed" in done.stdout
    again = run(*options, "--resume")  # nothing is left to do
    assert again.returncode == 0, again.stderr
    assert len(server.headers) == 6


def test_resume_keeps_failed_rows_of_other_images(
    server: ScriptedServer, images: Path, output: Path
) -> None:
    """A failed row of an image that the resumed run does not name stays in the output."""
    (images / "a.png").write_text("422")
    options = "--url", server.url, "--output", output
    assert run(images, *options).returncode == 1
    before = read(output)
    (images / "d.png").write_text("200 2")
    done = run(images / "d.png", *options, "--resume")
    assert done.returncode == 1, done.stderr  # the failed image still has no answer
    assert "4 images: 3 classified, 1 failed" in done.stdout
    rows = read(output)
    assert rows.pop("d.png")["class_name"] == CLASSES[2]
    assert rows == before
    assert before["a.png"]["error_type"] == "/problems/422"


def test_explanations_are_files_and_a_page(
    server: ScriptedServer, images: Path, output: Path
) -> None:
    """Each row names its picture in the folder; after a resumed run the page shows all rows."""
    seen = output.parent / "seen"
    options = "--url", server.url, "--output", output, "--explain", seen
    assert run(images / "a.png", *options).returncode == 0
    done = run(images, *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{seen}/index.html shows what the model saw" in done.stdout
    page = (seen / "index.html").read_text()
    for row in read(output).values():
        cell = row["explanation"]
        name = (json.loads(cell) if output.suffix == ".csv" else cell)["image"]
        assert (seen / name).read_text() == str(row["class_id"])
        assert page.count(f'src="{name}"') == 1
    assert page.count("<article") == 3


def test_pictures_of_an_earlier_run_are_no_images(
    server: ScriptedServer, images: Path, tmp_path: Path
) -> None:
    """The folder of the pictures may lie among the images; pictures that are gone come again."""
    options = (
        "--url",
        server.url,
        "--output",
        tmp_path / "results.csv",
        "--explain",
        images / "seen",
    )
    for _ in range(2):
        done = run(images, *options, "--resume")
        assert "3 images: 3 classified, 0 failed" in done.stdout, done.stderr
    assert len(server.headers) == 3
    pictures = sorted((images / "seen").glob("*.png"))
    pictures[0].unlink()
    assert run(images, *options, "--resume").returncode == 0
    assert sorted((images / "seen").glob("*.png")) == pictures
    assert len(server.headers) == 4


def test_full_disk_ends_the_run_with_its_summary(server: ScriptedServer, images: Path) -> None:
    """If a row cannot be written, the run ends with the reason and without a traceback."""
    output = images / "results.csv"
    limited = ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "bash"]
    for number in range(20):
        (images / f"z{number}.png").write_text(f"200 1;{number}")
    arguments = command(images, "--url", server.url, "--output", output)
    done = subprocess.run([*limited, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Continue with --resume" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_keeps_the_rows(server: ScriptedServer, images: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a summary; the rows are whole and --resume continues the run."""
    for number in range(4):
        (images / f"z{number}.png").write_text("hang;200 1" + " " * number)
    output = tmp_path / "results.csv"
    options = images, "--url", server.url, "--output", output
    # A shell's background jobs ignore SIGINT, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command(*options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while len(server.arrivals) < 7 or len(read_rows(output)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert "3 images: 3 classified" in stdout
    assert set(read(output)) == {"a.png", "b.JPG", "c.webp"}
    done = run(*options, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(read(output)) == 7


def test_accuracy_comes_from_folders(server: ScriptedServer, tmp_path: Path) -> None:
    """A folder named after a class or its id labels its images; other images do not count."""
    truth = {"0/a": 0, "0/b": 1, "2/a": 2, "Bag/b": 2, "Bag/c": 0, "3/a": 0, "shoes/a": 0}
    for name, class_id in truth.items():
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"200 {class_id}")
    options = "--url", server.url, "--labels-from-folders"
    done = run(tmp_path / "set", *options, "--output", tmp_path / "results.csv")
    assert done.returncode == 0, done.stderr
    assert (
        "accuracy: 60.00% (3 of 5 labelled and classified images; without a label: 2)"
        in done.stdout
    )
    done = run(tmp_path / "set/shoes", *options, "--output", tmp_path / "other.csv")
    assert "accuracy: unknown" in done.stdout
    assert "1 classified images are in folders that are named after no class" in done.stderr


def test_labels_are_a_column_and_can_be_required(server: ScriptedServer, tmp_path: Path) -> None:
    """Rows have their labels; with --require-labels an image without one gives exit code 1."""
    for name in ("t-shirts_tops/a", "BAGS/b", "shoes/c"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("200 0")
    output = tmp_path / "results.csv"
    options = tmp_path / "set", "--url", server.url, "--output", output, "--overwrite"
    assert run(*options, "--labels-from-folders").returncode == 0
    labels = {name: row["label"] for name, row in read(output).items()}
    assert labels == {"a.png": "T-shirt/top", "b.png": "Bag", "c.png": ""}
    assert run(*options, "--labels-from-folders", "--require-labels").returncode == 1
    assert run(*options, "--require-labels").returncode == 2
    shutil.rmtree(tmp_path / "set/shoes")
    assert run(*options, "--labels-from-folders", "--require-labels").returncode == 0


def test_files_that_are_passed_over_are_in_the_summary(
    server: ScriptedServer, images: Path, tmp_path: Path
) -> None:
    """The summary counts the files of a folder that are no images by their suffix."""
    (images / "boot.heic").touch()
    done = run(images, "--url", server.url, "--output", tmp_path / "results.csv")
    assert done.returncode == 0
    assert "3 other files in the folders were passed over" in done.stdout
    assert "1 x .heic" in done.stdout


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("401", "answered 401 (Title 401): the detail"),
        ("403", "answered 403"),
        ("404", "answered 404"),
        ("405", "answered 405"),
        ("415", "answered 415"),
        ("501", "answered 501"),
        ("400", "answered 400"),
        ("301 to https://shop.example/", "the URL redirects to https://shop.example/"),
        ("422 as urn:problem-type:fashion-classifier:invalid-parameter", "answered 422"),
        ("429 after 86400", "answered 429"),
        ("garbage", "answered 200 without a prediction"),
    ],
)
def test_answer_that_every_image_gets_ends_the_run(
    server: ScriptedServer, tmp_path: Path, script: str, reason: str
) -> None:
    """A wrong key, URL or model, or a used-up quota, ends the run early, with the reason."""
    for number in range(30):
        (tmp_path / f"{number}.png").write_text(script)
    options = "--url", server.url, "--output", tmp_path / "results.csv", "--concurrency", 2
    done = run(tmp_path, *options)
    assert done.returncode == 1
    assert f"error: {server.url}" in done.stderr
    assert reason in done.stderr
    assert len(server.headers) <= 4


@pytest.mark.parametrize(
    "script", ["408", "413", "422", "422 as urn:x:unreadable-image", "500", "503 after 0"]
)
def test_answer_for_one_image_does_not_end_the_run(
    server: ScriptedServer, images: Path, tmp_path: Path, script: str
) -> None:
    """After an error of one image, or an overload, all others are still sent."""
    (images / "0.png").write_text(script)
    options = "--url", server.url, "--output", tmp_path / "r.csv", "--concurrency", 1
    done = run(images, *options, "--retries", 1)
    assert done.returncode == 1
    assert "4 images: 3 classified, 1 failed" in done.stdout


def test_resume_under_another_spelling_sends_nothing(
    server: ScriptedServer, images: Path, output: Path
) -> None:
    """Images that have an answer are skipped when their paths are spelled in another way."""
    options = "--url", server.url, "--output", output
    assert run(images, *options).returncode == 0
    roundabout = images / "deeper" / ".."
    assert run(roundabout, *options, "--resume").returncode == 0
    assert len(server.headers) == 3
    assert len(read(output)) == 3


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "socks://127.0.0.1:1", "x://y", "::"])
def test_proxy_is_not_used_for_this_machine(
    server: ScriptedServer,
    images: Path,
    tmp_path: Path,
    proxy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With any proxy in the environment, a service on this machine is reached directly."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "fd00::/8")
    done = run(images, "--url", server.url, "--output", tmp_path / "results.csv")
    assert done.returncode == 0, done.stderr
    far = run(images, "--url", "http://shop.example", "--output", tmp_path / "far.csv")
    if proxy != "::":
        assert far.returncode == 2
        assert "proxy" in far.stderr
    assert "Traceback" not in far.stderr


def test_concurrency_is_bounded(server: ScriptedServer, tmp_path: Path) -> None:
    """At most ``--concurrency`` requests are in flight, and each row has its own image's answer."""
    for number in range(60):
        (tmp_path / f"{number}.png").write_text(f"200 {number % 3}")
    options = "--url", server.url, "--output", tmp_path / "results.csv", "--concurrency", 3
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert 1 < server.most_in_flight <= 3
    rows = read(tmp_path / "results.csv")
    found = [int(rows[f"{number}.png"]["class_id"]) for number in range(60)]
    assert found == [number % 3 for number in range(60)]


def test_existing_output_is_safe(server: ScriptedServer, images: Path, tmp_path: Path) -> None:
    """Only --overwrite replaces an output. Another program's file is never resumed."""
    output = tmp_path / "results.csv"
    options = images, "--url", server.url, "--output", output
    output.write_text("path,label\nboot.png,9\n")
    for flags in ([], ["--resume"], ["--resume", "--overwrite"]):
        done = run(*options, *flags)
        assert done.returncode == 2
        assert "--resume" in done.stderr or "cannot be resumed" in done.stderr
    assert output.read_text() == "path,label\nboot.png,9\n"
    assert not server.arrivals
    assert run(*options, "--overwrite").returncode == 0
    assert len(read(output)) == 3


def test_wrong_arguments_are_named(images: Path, tmp_path: Path) -> None:
    """A missing path, a wrong suffix and a wrong URL exit with 2 and create no output."""
    for arguments, named in {
        (images / "missing.png", "--output", tmp_path / "r.csv"): str(images / "missing.png"),
        (images, "--output", tmp_path / "r.xlsx"): "r.xlsx",
        (images, "--output", tmp_path / "r.csv", "--url", "localhost:1"): "localhost:1",
    }.items():
        done = run(*arguments)
        assert (done.returncode, named in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_unreachable_server_ends_the_run(images: Path, tmp_path: Path) -> None:
    """Without a server the run exits with 1 and names the URL; --resume continues it."""
    url, output = unused_url(), tmp_path / "results.jsonl"
    done = run(images, "--url", url, "--output", output, "--retries", 0)
    assert done.returncode == 1
    assert url in done.stderr
    assert "Traceback" not in done.stderr
    with running() as server:
        assert run(images, "--url", server.url, "--output", output, "--resume").returncode == 0
    assert len(read(output)) == 3


def test_imports_nothing_of_the_server() -> None:
    """The client loads no web framework, model runtime, imaging or other part of service."""
    listing = "import service.client.__main__, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.split(".")[0] == "service"}
    assert {".".join(name.split(".")[:2]) for name in ours} == {"service", "service.client"}
    packages = {"fastapi", "starlette", "uvicorn", "onnxruntime", "PIL", "numpy", "pydantic"}
    assert not loaded & packages


@pytest.mark.parametrize("way", [("-m", "service.client"), ("-c", "import service.client")])
def test_missing_extra_is_named(way: tuple[str, str], tmp_path: Path) -> None:
    """Without the extra, the message says what to install; the command prints no traceback."""
    (tmp_path / "service").mkdir()
    (tmp_path / "service/__init__.py").touch()
    shutil.copytree(ROOT / "service/client", tmp_path / "service/client")
    bare = [sys.executable, "-S", *way]  # -S: without site-packages
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    if way[0] == "-m":
        assert done.stderr.strip() == MISSING
    else:
        assert done.stderr.strip().splitlines()[-1] == f"ModuleNotFoundError: {MISSING}"


def test_real_service_answers(tmp_path: Path) -> None:
    """The named model gives all fields for images, and an error for a text named .png."""
    models = ROOT / "models/resnet-8", ROOT / "models/resnet-8-tiny/2"
    app = create_app(Settings(models=models, device="cpu"))
    config = uvicorn.Config(app, port=0, log_config=None)
    service = uvicorn.Server(config)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        while not service.started:
            time.sleep(0.02)
        url = f"http://127.0.0.1:{service.servers[0].sockets[0].getsockname()[1]}"
        (tmp_path / "text.png").write_text("no image")
        sample = ROOT / "tests/data/fashion-mnist-sample"
        output, seen = tmp_path / "results.jsonl", tmp_path / "seen"
        options = "--url", url, "--output", output, "--model", "resnet-8-tiny", "--explain", seen
        done = run(f"{sample}/000*.png", tmp_path / "text.png", *options)
        unknown = run(sample, "--url", url, "--output", tmp_path / "r.csv", "--model", "resnet-9")
        names = sorted(sample.glob("*.png"))
        with Client(url) as client:
            batch = client.predict_batch([names[0], b"no image", names[1]], top_k=1, coverage=0.9)
            one = client.predict(names[1], top_k=1, coverage=0.9)
    finally:
        service.should_exit = True
        thread.join()
    assert done.returncode == 1, done.stderr
    rows = read(output)
    rejected = rows.pop("text.png")
    assert rejected["error_title"]
    assert rejected["request_id"]
    assert len(rows) == 10
    assert {row["model"] for row in rows.values()} == {"resnet-8-tiny/2"}
    sums = [sum(row["probabilities"].values()) for row in rows.values()]
    assert sums == pytest.approx([1] * 10, abs=1e-3)
    assert all((seen / row["explanation"]["image"]).stat().st_size for row in rows.values())
    assert (seen / "index.html").read_text().count("<article") == 10
    assert all(isinstance(row["distance"], float) for row in rows.values())
    assert {row["in_distribution"] for row in rows.values()} <= {True, False}
    assert "resnet-8-tiny" in unknown.stderr  # the answer lists the models
    assert len(read(tmp_path / "r.csv")) == 0
    assert [type(item) for item in batch] == [Prediction, ProblemError, Prediction]
    assert isinstance(batch[1], ProblemError)
    assert (batch[1].status, batch[1].title) == (422, rejected["error_title"])
    assert batch[2] == one
    assert one.prediction_set
    assert list(one.probabilities) == [one.class_name]
