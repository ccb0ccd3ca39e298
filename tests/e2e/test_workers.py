"""Real processes: several workers on one port, and models that are swapped while they serve."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import psutil
import pytest

from service.bundle import MODEL_FILE
from service.server.assignment import Assignment
from service.settings import Settings
from tests.e2e.server import (
    ROOT,
    SLOW_IMAGE,
    Server,
    free_port,
    run_at_start,
    serving,
    start,
    wait_until,
)
from tests.service.bundles import hanging_model, write_linear_bundle, write_photo_bundle
from tests.service.images import encode, noise

IMAGE = encode(noise(20, 30))


def version(server: Server) -> str:
    """Return the version of the model that answers an upload."""
    answer: str = server.predict(IMAGE).json()["model"]["version"]
    return answer


def test_killed_worker_is_replaced(linear_folder: Path) -> None:
    """If one of two workers is killed, the other answers all requests until two serve again."""
    with serving(models=linear_folder, workers=2, device="cpu") as server:
        supervisor = psutil.Process(server.process.pid)
        victim, survivor = supervisor.children()
        victim.kill()
        victim.wait(30)
        statuses = set()

        def has_replacement() -> bool:
            statuses.add(server.predict(IMAGE).status_code)
            return server.read_log().count("serves on") == 3

        wait_until(has_replacement)
        assert statuses == {200}
        assert len(supervisor.children()) == 2
        assert survivor in supervisor.children()
    assert server.process.returncode == 0


def test_worker_is_replaced_after_the_metrics_folder_was_deleted(linear_folder: Path) -> None:
    """A worker is replaced even if the temporary folder of the metrics was deleted."""
    with serving(models=linear_folder, workers=2, device="cpu") as server:
        victim = psutil.Process(server.process.pid).children()[0]
        shutil.rmtree(metrics_folder(server))
        victim.kill()
        victim.wait(30)
        wait_until(lambda: server.read_log().count("serves on") == 3)
        assert {server.predict(IMAGE).status_code for _ in range(10)} == {200}
        assert server.get("/metrics").status_code == 200
    assert server.process.returncode == 0


def test_worker_does_what_its_assignment_says(linear_folder: Path, tmp_path: Path) -> None:
    """A worker uses the given socket, folder and settings, and ends when its pipe is closed.

    The settings ask for several workers and for a port: a worker ignores both. The environment has
    other settings, which a worker ignores too.
    """
    settings = Settings(models=(linear_folder,), device="cpu", workers=2, port=1)
    values = settings.model_dump(mode="json")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assignment = Assignment(listening.fileno(), 1, True, str(tmp_path), values)
        environment = assignment.to_environment()
        worker = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            cwd=ROOT,
            env=environment | {"SERVICE_MODELS": "/none", "SERVICE_LOG_LEVEL": "none"},
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
        )
        url = "http://{}:{}".format(*listening.getsockname())
    try:
        assert httpx2.get(f"{url}/health", timeout=60).json()["status"] == "ready"
        assert not psutil.Process(worker.pid).children()
        assert list(tmp_path.glob("counts-*.json"))
        worker.communicate(timeout=60)  # closes the pipe
    finally:
        worker.kill()
    assert worker.returncode == 0


def test_worker_with_stuck_threads_is_replaced(linear_folder: Path) -> None:
    """A worker whose threads are all stuck is replaced; afterwards all uploads are answered."""
    limits = {
        "stuck_seconds": 0.1,
        "max_upload_bytes": 2 * len(SLOW_IMAGE),
        "request_timeout_seconds": 0.1,
        "check_interval_seconds": 0.01,
    }
    with serving(models=linear_folder, workers=2, device="cpu", threads=1, **limits) as server:

        def one_is_replaced() -> bool:
            with suppress(httpx2.TransportError):  # the worker with this upload has ended
                server.predict(SLOW_IMAGE)
            return "is replaced" in server.read_log()

        def all_serve() -> bool:
            with suppress(httpx2.TransportError):
                return {server.predict(IMAGE).status_code for _ in range(10)} == {200}
            return False

        wait_until(one_is_replaced)
        assert "every thread is stuck" in server.read_log()
        wait_until(all_serve)  # the other worker may be stuck as well
        wait_until(lambda: len(psutil.Process(server.process.pid).children()) == 2)
    assert server.process.returncode == 0


@pytest.mark.parametrize(
    ("threads", "reason"),
    [(1, "the event loop hangs"), (2, "a batch has not ended after 0.5 seconds")],
)
def test_worker_with_a_hung_batch_is_replaced(tmp_path: Path, threads: int, reason: str) -> None:
    """A batch that never ends takes the event loop or a thread for good: its worker is replaced."""
    folder = write_linear_bundle(tmp_path / "1", model=hanging_model(3, 20, 30)).folder
    limits = {"stuck_seconds": 0.5, "request_timeout_seconds": 0.5, "check_interval_seconds": 0.1}
    with serving(models=folder, workers=2, device="cpu", threads=threads, **limits) as server:
        with suppress(httpx2.TransportError):  # the worker may end before it answers
            assert server.predict(encode(np.full((20, 30), 255, np.uint8))).status_code == 504
        wait_until(lambda: server.read_log().count("serves on") == 3)
        assert "exit code 75 and is replaced" in server.read_log()
        assert reason in server.read_log()
        assert {server.predict(IMAGE).status_code for _ in range(10)} == {200}
    assert server.process.returncode == 0


DEVICE_THAT_BREAKS = """
from pathlib import Path
from onnxruntime import InferenceSession

run = InferenceSession.run

def run_or_fail(*arguments):
    if Path({switch!r}).exists():
        raise RuntimeError("CUDA failure 2: out of memory")
    return run(*arguments)

InferenceSession.run = run_or_fail
"""


def test_service_comes_back_when_its_device_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear_folder: Path
) -> None:
    """While the device fails, uploads get 503; then the same workers serve again."""
    switch = tmp_path / "broken"
    run_at_start(DEVICE_THAT_BREAKS.format(switch=str(switch)), tmp_path, monkeypatch)
    with serving(models=linear_folder, workers=2, device="cpu", check_interval_seconds=1) as server:
        workers = psutil.Process(server.process.pid).children()
        switch.touch()
        wait_until(lambda: server.read_log().count("the self-test failed") == 2)
        assert {server.predict(IMAGE).status_code for _ in range(10)} == {503}
        switch.unlink()
        wait_until(lambda: server.read_log().count("serves on") == 4)
        assert {server.predict(IMAGE).status_code for _ in range(10)} == {200}
        assert psutil.Process(server.process.pid).children() == workers
    assert server.process.returncode == 0


def test_service_ends_if_a_new_worker_cannot_use_the_device_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear_folder: Path
) -> None:
    """A worker whose device fails for long is replaced. If the new one fails too, all end."""
    switch = tmp_path / "broken"
    run_at_start(DEVICE_THAT_BREAKS.format(switch=str(switch)), tmp_path, monkeypatch)
    with serving(
        models=linear_folder, workers=2, device="cpu", check_interval_seconds=0.1
    ) as server:
        switch.touch()
        assert server.process.wait(60) == 1
        assert "exit code 75 and is replaced" in server.read_log()


def test_connections_are_spread_over_the_workers(linear_folder: Path) -> None:
    """If many connections are opened at once, every worker gets some of them."""
    with serving(models=linear_folder, workers=2, device="cpu") as server, ExitStack() as stack:
        address = urlsplit(server.url).hostname, urlsplit(server.url).port
        for _ in range(40):  # one worker gets all 40 by chance once in 5e11 runs
            stack.enter_context(socket.create_connection(address))
        assert server.get("/health").status_code == 200  # by now, the last connection is accepted
        for worker in psutil.Process(server.process.pid).children():
            assert [connection for connection in worker.net_connections() if connection.raddr]


def test_metrics_are_summed_over_workers(linear_folder: Path) -> None:
    """Each worker reports the requests of all workers."""
    with serving(models=linear_folder, workers=2, device="cpu") as server:
        with ThreadPoolExecutor(8) as threads:
            assert {r.status_code for r in threads.map(server.predict, [IMAGE] * 40)} == {200}
        answered = 'service_requests_total{route="/predict",status="200"}'
        # A request is counted only after its answer is sent.
        wait_until(lambda: server.metric(answered) == 40)
        for _ in range(8):
            assert server.metric(answered) == 40


def test_workers_share_the_rate_limit(linear_folder: Path) -> None:
    """Over many connections, two workers together answer as many uploads as the limit allows."""
    settings = {"models": linear_folder, "workers": 2, "device": "cpu"}
    with serving(**settings, rate_limit_per_minute=10) as server:
        answers = [server.predict(IMAGE) for _ in range(30)]
    left = [answer.headers["ratelimit"].partition("r=")[2].partition(";")[0] for answer in answers]
    assert left[:10] == [str(number) for number in range(9, -1, -1)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:10] == [200] * 10
    assert statuses.count(429) > 15  # a token comes back after six seconds


def metrics_folder(server: Server) -> Path:
    """Return the folder in which the workers share their metrics."""
    worker, *_ = psutil.Process(server.process.pid).children()
    assignment = Assignment.from_environment(worker.environ())
    assert assignment is not None
    return Path(assignment.metrics_folder)


ANSWERED = 'service_requests_total{route="/predict",status="200"}'


def kill_one(server: Server, folder: Path, expected: int) -> None:
    """Kill a worker, and wait until its files are gone and ``expected`` workers have started."""
    victim, *_ = psutil.Process(server.process.pid).children()
    victim.kill()
    wait_until(lambda: server.read_log().count("serves on") == expected)
    wait_until(lambda: not list(folder.glob(f"*-{victim.pid}.*")))


def answer_20(server: Server, expected: int) -> None:
    """Let 20 uploads be answered, and wait until ``expected`` are counted."""
    with ThreadPoolExecutor(8) as threads:
        assert {r.status_code for r in threads.map(server.predict, [IMAGE] * 20)} == {200}
    wait_until(lambda: server.metric(ANSWERED) == expected)


def test_killed_workers_leave_no_files_but_their_counts(linear_folder: Path) -> None:
    """However many workers are killed, the files stay as many, and no count is lost."""
    with serving(models=linear_folder, workers=2, device="cpu") as server:
        folder = metrics_folder(server)
        numbers = set()
        for number in range(1, 4):
            answer_20(server, 20 * number)
            kill_one(server, folder, 2 + number)
            numbers.add(len(list(folder.iterdir())))
            assert server.metric(ANSWERED) == 20 * number
        assert len(numbers) == 1


def test_folder_of_metrics_is_made_anew(linear_folder: Path) -> None:
    """If the folder is deleted, the metrics are answered, and each worker counts on."""
    with serving(models=linear_folder, workers=2, device="cpu") as server:
        assert server.predict(IMAGE).status_code == 200
        wait_until(lambda: server.metric(ANSWERED) == 1)
        shutil.rmtree(metrics_folder(server))
        for _ in range(8):
            assert server.get("/metrics").status_code == 200
        wait_until(lambda: len(list(metrics_folder(server).glob("counts-*.json"))) == 2)
        answer_20(server, 21)
        for path in metrics_folder(server).iterdir():
            path.unlink()
        for _ in range(8):
            assert server.get("/metrics").status_code == 200
        wait_until(lambda: server.metric("service_ready") == 1)


def test_workers_that_cannot_serve_end_the_supervisor(tmp_path: Path) -> None:
    """If no worker can load the model, the log has the reason, and the exit code is 1."""
    process = start(port=free_port(), models=tmp_path / "none", workers=2)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "manifest.json is missing" in stderr


def test_workers_end_with_their_supervisor(linear_folder: Path) -> None:
    """If the supervisor is killed, its workers end."""
    with serving(models=linear_folder, workers=2, device="cpu", grace_seconds=0) as server:
        workers = psutil.Process(server.process.pid).children()
        server.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive


@pytest.mark.parametrize("workers", [1, 2])
def test_new_version_is_swapped_in_without_a_failed_request(tmp_path: Path, workers: int) -> None:
    """Under load, a new version takes over and a corrupt one is rejected; no request fails."""
    folder = tmp_path / "linear"
    write_linear_bundle(folder / "1")
    with serving(
        models=folder, workers=workers, device="cpu", check_interval_seconds=0.2
    ) as server:
        statuses: list[int] = []
        with ThreadPoolExecutor(4) as threads:
            stop = False

            def send_uploads() -> None:
                while not stop:
                    statuses.append(server.predict(IMAGE).status_code)

            clients = [threads.submit(send_uploads) for _ in range(3)]
            try:
                # The metrics know version 1 before version 2 exists.
                wait_until(lambda: reported_models(server) == {"1": 1, "2": 0})
                new = write_linear_bundle(tmp_path / "new", version="2").folder
                shutil.copytree(new, folder / "2")
                wait_until(lambda: all(version(server) == "2" for _ in range(10)))
                wait_until(lambda: reported_models(server) == {"1": 0, "2": 1})
                corrupt = write_linear_bundle(tmp_path / "corrupt", version="3").folder
                (corrupt / MODEL_FILE).write_bytes(b"damaged")
                shutil.move(corrupt, folder / "3")
                wait_until(lambda: "is rejected" in server.read_log())
                assert version(server) == "2"
                assert server.get("/health").json()["models"][0]["version"] == "2"
            finally:
                stop = True
            for client in clients:
                client.result()
        assert set(statuses) == {200}


@pytest.mark.parametrize("workers", [1, 2])
def test_earlier_version_returns_when_the_newer_one_is_moved_away(
    tmp_path: Path, workers: int
) -> None:
    """Without its folder, the newer version is replaced by the earlier one; both are logged."""
    folder = tmp_path / "linear"
    write_linear_bundle(folder / "1")
    write_linear_bundle(folder / "2", version="2")
    with serving(
        models=folder, workers=workers, device="cpu", check_interval_seconds=0.2
    ) as server:
        assert version(server) == "2"
        shutil.move(folder / "2", tmp_path / "2")
        wait_until(lambda: all(version(server) == "1" for _ in range(10)))
        wait_until(lambda: reported_models(server) == {"1": 1, "2": 0})
        assert server.read_log().count("model linear version 1 serves on cpu") == workers


def test_another_model_is_served_after_a_restart(tmp_path: Path) -> None:
    """Another folder in SERVICE_MODELS is another model; the log and each answer name it."""
    for name in ("linear", "other"):
        folder = write_linear_bundle(tmp_path / name, name=name).folder
        with serving(models=folder, device="cpu") as server:
            assert server.predict(IMAGE).json()["model"]["name"] == name
            assert f"model {name} version 1 serves on cpu" in server.read_log()


@pytest.mark.parametrize("workers", [1, 2])
def test_swap_of_one_model_leaves_the_other_alone(tmp_path: Path, workers: int) -> None:
    """Under load, a new version of the photo model takes over; no request of either model fails."""
    write_linear_bundle(tmp_path / "linear" / "1")
    write_photo_bundle(tmp_path / "colours" / "1")
    models = f"{tmp_path / 'linear'},{tmp_path / 'colours'}"
    uploads = [IMAGE, encode(noise(90, 90))]
    answers: list[tuple[bytes, dict[str, str]]] = []
    with serving(
        models=models, workers=workers, device="cpu", check_interval_seconds=0.2
    ) as server:
        stop = False

        def send_uploads() -> None:
            while not stop:
                for upload in uploads:
                    response = server.predict(upload)
                    assert response.status_code == 200, response.text
                    answers.append((upload, response.json()["model"]))

        with ThreadPoolExecutor(3) as threads:
            clients = [threads.submit(send_uploads) for _ in range(3)]
            try:
                new = write_photo_bundle(tmp_path / "new", version="2").folder
                shutil.move(new, tmp_path / "colours" / "2")
                labels = 'device="cpu",name="colours",provider="CPUExecutionProvider"'
                info = f'service_model_info{{{labels},version="2"}}'
                wait_until(lambda: server.metric(info) == 1)
                wait_until(lambda: server.read_log().count("colours version 2 serves") == workers)
                answers.clear()
                wait_until(lambda: len(answers) > 20)
            finally:
                stop = True
            for client in clients:
                client.result()
        assert server.read_log().count("model linear version 1 serves") == workers
        health = server.get("/health").json()
        assert [model["version"] for model in health["models"]] == ["1", "2"]
    grey, photos = ([m for u, m in answers if u == upload] for upload in uploads)
    assert {model["version"] for model in grey} == {"1"}
    assert {model["name"] for model in grey} == {"linear"}
    assert {model["version"] for model in photos} == {"2"}


def test_hangup_reloads_every_model(tmp_path: Path) -> None:
    """On SIGHUP, every worker reads the folders of all models again."""
    for write, name in ((write_linear_bundle, "linear"), (write_photo_bundle, "colours")):
        write(tmp_path / name, version="1")
    models = f"{tmp_path / 'linear'},{tmp_path / 'colours'}"
    with serving(models=models, workers=2, device="cpu") as server:
        for write, name in ((write_linear_bundle, "linear"), (write_photo_bundle, "colours")):
            shutil.rmtree(tmp_path / name)
            write(tmp_path / name, version="1.1")
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: server.read_log().count("linear version 1.1 serves") == 2)
        wait_until(lambda: server.read_log().count("colours version 1.1 serves") == 2)


def test_former_name_of_the_setting_is_explained() -> None:
    """SERVICE_MODEL is not ignored: one line says what to set instead, and the exit code is 2."""
    process = start(model="models/resnet-8/3")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr.count("\n") == 1
    assert "set SERVICE_MODELS=models/resnet-8/3" in stderr


def reported_models(server: Server) -> dict[str, int]:
    """Read from the metrics whether each version serves: 1 if it does in any worker, else 0."""
    labels = 'device="cpu",name="linear",provider="CPUExecutionProvider"'
    return {
        version: server.metric(f'service_model_info{{{labels},version="{version}"}}')
        for version in ("1", "2")
    }


def test_hangup_reloads_the_model(tmp_path: Path) -> None:
    """On SIGHUP the service reads the bundle's folder again and serves what is there now."""
    write_linear_bundle(tmp_path / "m", version="1")
    with serving(models=tmp_path / "m", device="cpu") as server:
        shutil.rmtree(tmp_path / "m")
        write_linear_bundle(tmp_path / "m", version="1.1")
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: version(server) == "1.1")


def test_signal_while_a_worker_starts_stops_all(linear_folder: Path) -> None:
    """SIGTERM ends supervisor and workers, even while a worker or a replacement starts."""
    with serving(models=linear_folder, workers=2, device="cpu", grace_seconds=0) as server:
        supervisor = psutil.Process(server.process.pid)
        before = supervisor.children()
        before[0].kill()
        wait_until(lambda: bool(set(supervisor.children()) - set(before)))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
    process = start(
        port=free_port(), models=linear_folder, workers=2, device="cpu", grace_seconds=0
    )
    try:
        wait_until(lambda: bool(psutil.Process(process.pid).children()))
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert process.returncode == 0
