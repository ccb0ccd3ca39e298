"""Several workers on one port, and models that are swapped while they serve, as real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from service.bundle import MODEL_FILE
from service.telemetry.metrics import MULTIPROCESS_FOLDER
from tests.e2e.server import Server, free_port, run_at_start, serving, start
from tests.e2e.test_limits import metric, wait_until
from tests.service.bundles import write_linear_bundle
from tests.service.images import encode, noise

IMAGE = encode(noise(20, 30))


def version(server: Server) -> str:
    """Ask for the version that answers."""
    answer: str = server.predict(IMAGE).json()["model"]["version"]
    return answer


def test_killed_worker_is_replaced(linear_folder: Path) -> None:
    """After kill -9 of one of two workers the other answers all that comes until two serve again."""
    with serving(model=linear_folder, workers=2, device="cpu") as server:
        supervisor = psutil.Process(server.process.pid)
        victim, survivor = supervisor.children()
        victim.kill()
        victim.wait(30)
        statuses = set()
        while server.read_log().count("serves on") < 3:
            statuses.add(server.predict(IMAGE).status_code)
        assert statuses == {200}
        assert len(supervisor.children()) == 2
        assert survivor in supervisor.children()
    assert server.process.returncode == 0


def test_worker_is_replaced_though_their_folder_is_gone(linear_folder: Path) -> None:
    """What workers share lies among temporary files: when it is deleted and a worker dies, the service lives on."""
    with serving(model=linear_folder, workers=2, device="cpu") as server:
        victim = psutil.Process(server.process.pid).children()[0]
        shutil.rmtree(victim.environ()[MULTIPROCESS_FOLDER])
        victim.kill()
        victim.wait(30)
        wait_until(lambda: server.read_log().count("serves on") == 3)
        assert {server.predict(IMAGE).status_code for _ in range(10)} == {200}
        assert server.get("/metrics").status_code == 200
    assert server.process.returncode == 0


def test_worker_with_stuck_threads_is_replaced(
    linear_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose threads do not come back from their images ends and is replaced, and the others serve on."""
    # No image that is allowed takes so long: here what takes a moment counts as stuck.
    run_at_start(
        "import service.inference.predictor\nservice.predictor.STUCK_SECONDS = 0.1\n",
        tmp_path,
        monkeypatch,
    )
    slow = encode(noise(6000, 6000), compress_level=1)
    limits = {
        "max_upload_bytes": 2 * len(slow),
        "request_timeout_seconds": 0.1,
        "check_interval_seconds": 0.01,
    }
    with serving(model=linear_folder, workers=2, device="cpu", threads=1, **limits) as server:

        def one_is_replaced() -> bool:
            with suppress(httpx2.TransportError):  # the worker that it was at has ended
                server.predict(slow)
            return "is replaced" in server.read_log()

        def all_serve() -> bool:
            with suppress(httpx2.TransportError):
                return {server.predict(IMAGE).status_code for _ in range(10)} == {200}
            return False

        wait_until(one_is_replaced)
        assert "every thread is stuck" in server.read_log()
        wait_until(all_serve)  # the other worker may have been stuck as well
        wait_until(lambda: len(psutil.Process(server.process.pid).children()) == 2)
    assert server.process.returncode == 0


def test_connections_are_shared_out(linear_folder: Path) -> None:
    """Connections that are opened all at once do not all end up at one worker."""
    with serving(model=linear_folder, workers=2, device="cpu") as server, ExitStack() as stack:
        address = urlsplit(server.url).hostname, urlsplit(server.url).port
        for _ in range(40):  # all at one of two by chance: once in 5e11 times
            stack.enter_context(socket.create_connection(address))
        assert server.get("/health").status_code == 200  # so the last has been accepted
        for worker in psutil.Process(server.process.pid).children():
            assert [connection for connection in worker.net_connections() if connection.raddr]


def test_metrics_are_summed_over_workers(linear_folder: Path) -> None:
    """Whichever worker is asked, it tells the requests of all."""
    with serving(model=linear_folder, workers=2, device="cpu") as server:
        with ThreadPoolExecutor(8) as threads:
            assert {r.status_code for r in threads.map(server.predict, [IMAGE] * 40)} == {200}
        answered = 'service_requests_total{route="/predict",status="200"}'
        wait_until(
            lambda: metric(server, answered) == 40
        )  # the last is counted after it was answered
        for _ in range(8):
            assert metric(server, answered) == 40


def test_workers_that_cannot_serve_end_the_supervisor(tmp_path: Path) -> None:
    """A model that no worker can load is not tried for ever: the reason is told, and the exit code is 1."""
    process = start(port=free_port(), model=tmp_path / "none", workers=2)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "manifest.json is missing" in stderr


def test_workers_end_with_their_supervisor(linear_folder: Path) -> None:
    """Workers whose supervisor is killed do not stay behind."""
    with serving(model=linear_folder, workers=2, device="cpu", grace_seconds=0) as server:
        workers = psutil.Process(server.process.pid).children()
        server.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive


@pytest.mark.parametrize("workers", [1, 2])
def test_new_version_is_swapped_in_without_a_failed_request(tmp_path: Path, workers: int) -> None:
    """While requests come all the time, a new version takes over, a corrupt one is refused, and none of them fails."""
    folder = tmp_path / "linear"
    write_linear_bundle(folder / "1")
    with serving(model=folder, workers=workers, device="cpu", check_interval_seconds=0.2) as server:
        statuses: list[int] = []
        with ThreadPoolExecutor(4) as threads:
            stop = False

            def ask() -> None:
                while not stop:
                    statuses.append(server.predict(IMAGE).status_code)

            askers = [threads.submit(ask) for _ in range(3)]
            shutil.copytree(write_linear_bundle(tmp_path / "new", version="2").folder, folder / "2")
            wait_until(lambda: all(version(server) == "2" for _ in range(10)))
            wait_until(lambda: told_models(server) == {"1": 0, "2": 1})
            corrupt = write_linear_bundle(tmp_path / "corrupt", version="3").folder
            (corrupt / MODEL_FILE).write_bytes(b"damaged")
            shutil.move(corrupt, folder / "3")
            wait_until(lambda: "is refused" in server.read_log())
            assert version(server) == "2"
            assert server.get("/health").json()["model"]["version"] == "2"
            stop = True
            for asker in askers:
                asker.result()
        assert set(statuses) == {200}


def told_models(server: Server) -> dict[str, int]:
    """Read which versions serve, as any worker tells it of all."""
    name = 'service_model_info{{device="cpu",name="linear",provider="CPUExecutionProvider",version="{}"}}'
    return {version: metric(server, name.format(version)) for version in ("1", "2")}


def test_hangup_loads_the_model_again(tmp_path: Path) -> None:
    """On SIGHUP the bundle is read again: what replaced it in place serves from then on."""
    write_linear_bundle(tmp_path / "m", version="1")
    with serving(model=tmp_path / "m", device="cpu") as server:
        shutil.rmtree(tmp_path / "m")
        write_linear_bundle(tmp_path / "m", version="1.1")
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: version(server) == "1.1")


def test_signal_while_a_worker_is_replaced_stops_all(linear_folder: Path) -> None:
    """SIGTERM that comes as a worker is started, at first or as a replacement, ends the supervisor and every worker."""
    with serving(model=linear_folder, workers=2, device="cpu", grace_seconds=0) as server:
        supervisor = psutil.Process(server.process.pid)
        before = supervisor.children()
        before[0].kill()
        wait_until(lambda: bool(set(supervisor.children()) - set(before)))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
    process = start(port=free_port(), model=linear_folder, workers=2, device="cpu", grace_seconds=0)
    wait_until(lambda: bool(psutil.Process(process.pid).children()))
    workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert process.returncode == 0
