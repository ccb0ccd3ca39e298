"""The service as a real process."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests import golden
from tests.e2e.server import ROOT, SLOW_IMAGE, Server, free_port, run_at_start, serving, start
from tests.service.bundles import hanging_model, write_linear_bundle
from tests.service.images import FAULTS, encode, fault, noise


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run the shipped model on a server that accepts large uploads."""
    with serving(device="cpu", max_upload_bytes=100_000_000) as running:
        yield running


def test_server_survives_every_fault(server: Server) -> None:
    """After many parallel broken and unusual uploads, the same process answers a good upload."""
    files = [path for path in FAULTS.rglob("*") if path.is_file() and path.suffix != ".py"]
    with ThreadPoolExecutor(8) as threads:
        statuses = [
            r.status_code
            for r in threads.map(lambda path: server.predict(path.read_bytes()), files * 4)
        ]
    assert set(statuses) == {200, 413, 422}
    assert server.predict(fault("photo.png")).json()["class_name"] == "Ankle boot"
    assert server.process.poll() is None


def test_golden_set_gets_its_probabilities(server: Server) -> None:
    """With sixteen parallel uploads, each image gets the probabilities in the golden set."""
    uploads = [encode(image) for image in golden.images()]
    with ThreadPoolExecutor(16) as threads:
        answers = [
            list(r.json()["probabilities"].values()) for r in threads.map(server.predict, uploads)
        ]
    np.testing.assert_allclose(answers, golden.probabilities(), atol=golden.TOLERANCE)


def test_decoding_does_not_block_the_event_loop(server: Server) -> None:
    """While four slow images are decoded, /health/live is answered before any of them."""
    with ThreadPoolExecutor(8) as threads:
        uploads = [threads.submit(server.predict, SLOW_IMAGE) for _ in range(4)]
        lives = [threads.submit(server.get, "/health/live") for _ in range(4)]
        order = [
            "live" if future in lives else "upload" for future in as_completed(uploads + lives)
        ]
    assert order == ["live"] * 4 + ["upload"] * 4
    assert {future.result().status_code for future in uploads} == {200}


def test_parallel_uploads_get_their_own_answers(server: Server) -> None:
    """Each of many parallel uploads gets the answer that it gets alone."""
    images = [encode(noise(28, 28, seed)) for seed in range(64)]
    alone = [server.predict(image).json() for image in images]
    with ThreadPoolExecutor(16) as threads:
        together = [response.json() for response in threads.map(server.predict, images)]
    assert together == alone


def test_health_command_asks_the_running_server(server: Server) -> None:
    """``python -m service health`` exits 0 if the service is ready, and 1 if nothing listens."""

    def health(port: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service", "health"]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"SERVICE_PORT": port},
            capture_output=True,
            text=True,
            check=False,
        )

    ready = health(server.url.rsplit(":", 1)[1])
    assert ready.returncode == 0, ready.stderr
    assert '"ready"' in ready.stdout
    refused = health(str(free_port()))
    assert refused.returncode == 1
    assert "/health" in refused.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_server_after_its_requests(stop: signal.Signals) -> None:
    """After the signal, a request in flight gets its whole answer, and the exit code is 0."""
    with (
        serving(device="cpu", max_upload_bytes=100_000_000) as running,
        ThreadPoolExecutor() as threads,
    ):
        upload = threads.submit(running.predict, SLOW_IMAGE)
        both = "service_requests_in_flight 2.0"  # the upload, and the request for the metrics
        while both not in running.get("/metrics").text:
            assert not upload.done()
        running.process.send_signal(stop)
        assert upload.result().status_code == 200
        assert running.process.wait(30) == 0


def test_hung_model_does_not_keep_the_process(tmp_path: Path) -> None:
    """A thread that never comes back from the model does not delay the end of the process."""
    folder = write_linear_bundle(tmp_path / "1", model=hanging_model(3, 20, 30)).folder
    with serving(models=folder, device="cpu", threads=2, request_timeout_seconds=0.5) as running:
        assert running.predict(encode(np.full((20, 30), 255, np.uint8))).status_code == 504
        assert running.predict(encode(noise(20, 30))).status_code == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


def test_second_signal_ends_the_server_at_once(linear_folder: Path) -> None:
    """After a second SIGTERM the process does not wait for the end of the grace period."""
    settings = {"device": "cpu", "models": linear_folder, "workers": 1, "grace_seconds": 60}
    with serving(**settings) as running:
        for _ in range(2):
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        assert running.process.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_signal_at_the_start_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear_folder: Path, workers: int
) -> None:
    """A signal that arrives while the service opens its port is not lost."""
    code = """
import signal, sys

sys.addaudithook(lambda event, _: event == "socket.bind" and signal.raise_signal(signal.SIGTERM))
"""
    run_at_start(code, tmp_path, monkeypatch)
    process = start(
        port=free_port(), models=linear_folder, workers=workers, device="cpu", grace_seconds=0.1
    )
    try:
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, stderr


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"device": "gpu"}, 2, "SERVICE_DEVICE=gpu: Input should be 'auto', 'cuda' or 'cpu'"),
        ({"port": "many"}, 2, "SERVICE_PORT=many"),
        ({"max_image_pixels": "1000000000"}, 2, "SERVICE_MAX_IMAGE_PIXELS=1000000000"),
        ({"models": "models/none/1"}, 1, "models/none/1/manifest.json is missing"),
    ],
)
def test_server_that_cannot_serve_says_why_and_exits(
    settings: dict[str, Any], code: int, message: str
) -> None:
    """If a setting is invalid or the bundle is missing, the process prints the reason and exits.

    The exit code is not 0.
    """
    process = start(**{"port": free_port()} | settings)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert message in stderr
    assert "Traceback" not in stderr


def test_cuda_without_a_gpu_does_not_start() -> None:
    """With SERVICE_DEVICE=cuda and no GPU, the process prints the reason and exits with 1."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    process = start(port=free_port(), device="cuda")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SERVICE_DEVICE=cuda, but" in stderr


def test_another_classifier_is_served_without_touching_the_code(tmp_path: Path) -> None:
    """To serve a bundle with other classes and another image size, one setting is enough."""
    folder = write_linear_bundle(tmp_path / "linear").folder
    with serving(models=folder, device="cpu") as running:
        body = running.predict(fault("photo.png")).json()
        assert set(body["probabilities"]) == {"left", "middle", "right"}


def start_and_read(**settings: object) -> tuple[int, list[str]]:
    """Run a service that cannot start; return its exit code and the lines of its log."""
    process = start(subprocess.PIPE, device="cpu", port=free_port(), **settings)
    _, log = process.communicate(timeout=60)
    assert "Traceback" not in log
    return process.returncode, log.splitlines()


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "none", "x" * 300])
def test_model_path_that_is_no_folder_gives_a_reason(name: str, tmp_path: Path) -> None:
    """The path of a file, or a path that does not exist, ends the service with one reason."""
    bundle = write_linear_bundle(tmp_path / "1").folder
    code, log = start_and_read(models=bundle / name, workers=1)
    assert code == 1
    assert len([line for line in log if name in line]) == 1


def test_no_temporary_folder_gives_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a writable temporary folder, two workers end with one line that says what to do."""
    code = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/no/such']"
    run_at_start(code, tmp_path, monkeypatch)
    exit_code, log = start_and_read(workers=2)
    assert (exit_code, len(log)) == (1, 1)
    assert "TMPDIR" in log[0]
    assert "SERVICE_WORKERS=1" in log[0]


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_folder_of_prometheus(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder of another service's metrics is not used; one that is missing gives a reason."""
    monkeypatch.setenv(name, str(tmp_path))
    with serving(device="cpu", workers=2) as server:
        assert "\nservice_ready " in server.get("/metrics").text
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(name, "/no/such/folder")
    code, (line,) = start_and_read(workers=1)
    assert code == 1
    assert f"{name}=/no/such/folder is not a folder; unset it" in line


def test_variables_of_other_tools_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that uvicorn or a supervisor reads may be empty or hold anything."""
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    monkeypatch.setenv("WORKER_ASSIGNMENT", "")
    with serving(device="cpu", threads="", log_level="") as server:
        assert server.get("/health").status_code == 200


def test_misspelt_variable_is_logged_once() -> None:
    """A misspelt variable is logged once, also with several workers."""
    for workers in (1, 2):
        with serving(device="cpu", workers=workers, upload_timeout=3) as server:
            assert server.read_log().count("did you mean SERVICE_UPLOAD_TIMEOUT_SECONDS?") == 1


def test_idle_connection_stays_open_as_long_as_asked() -> None:
    """A connection is used again after an idle time that is shorter than the setting."""
    with serving(device="cpu", keep_alive_seconds=0.4) as server:
        host, port = server.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        for _ in range(3):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            time.sleep(0.2)
            assert connection.sock is not None
        assert connection.sock.recv(1) == b""  # the service closes the connection
        connection.close()


def test_ipv6_and_ipv4_are_served() -> None:
    """SERVICE_HOST=:: answers over both."""
    with serving(device="cpu", host="::", workers=2) as server:
        for host in ("127.0.0.1", "[::1]"):
            url = server.url.replace("127.0.0.1", host)
            assert httpx2.get(f"{url}/health", timeout=30).status_code == 200
