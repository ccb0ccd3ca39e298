"""How many images a client may send."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.api.quota import MAX_BUCKETS, MINUTE_NS, TokenBuckets
from service.app import create_app
from service.settings import Settings
from tests.service.api.taking import take_tokens
from tests.service.api.test_predict import IMAGE, assert_problem
from tests.service.conftest import wait_until_ready


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        """Return the nanoseconds."""
        return self.now_ns


@given(
    per_minute=st.integers(1, 500),
    requests=st.lists(
        st.tuples(st.integers(0, 10**11), st.integers(1, 20)), min_size=1, max_size=80
    ),
)
def test_no_span_of_time_admits_too_many(per_minute: int, requests: list[tuple[int, int]]) -> None:
    """In any span, at most a full bucket and the tokens gained in that span are admitted."""
    clock = Clock()
    buckets = TokenBuckets(per_minute, clock_ns=clock)
    admitted_at: list[int] = []
    for wait_ns, images in requests:
        clock.now_ns += wait_ns // per_minute
        quota = buckets.take("client", images)
        assert 0 <= quota.remaining <= per_minute
        assert quota.admitted or quota.remaining < images
        if quota.admitted:
            admitted_at += [clock.now_ns] * images
    for first, start in enumerate(admitted_at):
        for count, end in enumerate(admitted_at[first:], start=1):
            assert count <= per_minute + (end - start) * per_minute // MINUTE_NS


@given(per_minute=st.integers(1, 500), waits_ns=st.lists(st.integers(0, 2 * 10**9), max_size=50))
def test_client_that_waits_as_told_is_admitted(per_minute: int, waits_ns: list[int]) -> None:
    """As many requests as remain are admitted; the next one only after the announced seconds."""
    clock = Clock()
    buckets = TokenBuckets(per_minute, clock_ns=clock)
    for wait_ns in waits_ns:
        clock.now_ns += wait_ns
        buckets.take("client")
    quotas = [buckets.take("client") for _ in range(buckets.take("client").remaining)]
    assert all(quota.admitted for quota in quotas)
    rejected = buckets.take("client")
    assert not rejected.admitted
    clock.now_ns += rejected.seconds_to(1) * 10**9
    assert buckets.take("client").admitted
    rejected = buckets.take("client", per_minute)
    clock.now_ns += rejected.seconds_to(per_minute) * 10**9
    assert buckets.take("client", per_minute).admitted


def test_bucket_is_full_again_after_a_minute() -> None:
    """A minute refills a bucket, but not beyond its size; each client has its own bucket."""
    clock = Clock()
    buckets = TokenBuckets(5, clock_ns=clock)
    for _ in range(3):
        quotas = [buckets.take("client") for _ in range(6)]
        assert [quota.remaining for quota in quotas] == [4, 3, 2, 1, 0, 0]
        assert [quota.admitted for quota in quotas] == [True] * 5 + [False]
        assert quotas[-1].seconds_to(1) == 12
        assert buckets.take("another").admitted
        clock.now_ns += 10 * MINUTE_NS


def test_memory_is_bounded() -> None:
    """However many clients come, those whose buckets are emptiest are remembered."""
    buckets = TokenBuckets(5, clock_ns=Clock())
    assert buckets.take("client", 5).admitted
    for number in range(2 * MAX_BUCKETS):
        assert buckets.take(str(number)).admitted
    assert buckets.take(str(number)).remaining == 3
    assert not buckets.take("client").admitted


def test_processes_share_the_buckets(tmp_path: Path) -> None:
    """Processes with one folder admit as many as one process does; no token is lost or doubled."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes:
        assert sum(processes.map(take_tokens, [tmp_path] * 2)) == 15_000


def test_applications_with_one_folder_share_the_limit(tmp_path: Path) -> None:
    """Two workers of a server, which have the same folder, count a client's uploads together."""
    settings = Settings(device="cpu", rate_limit_per_minute=9)
    apps = [create_app(settings, metrics_folder=str(tmp_path)) for _ in range(2)]
    left = [TestClient(app).post("/predict").headers["ratelimit"] for app in apps]
    assert [text.partition(";t=")[0] for text in left] == ['"default";r=8', '"default";r=7']


def test_uploads_are_limited() -> None:
    """Each POST gets the quota's headers, and 429 above the quota; GET has no quota."""
    with TestClient(create_app(Settings(device="cpu", rate_limit_per_minute=3))) as client:
        answers = [client.post("/predict", content=b"x") for _ in range(4)]
        body = assert_problem(answers[-1], 429, "quota-exceeded")
        assert answers[-1].headers["retry-after"] in body["detail"]
        assert {answer.status_code for answer in answers[:-1]} & {429} == set()
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"default";q=3;w=60'}
        assert [answer.headers["ratelimit"].split(";t=")[0] for answer in answers] == [
            f'"default";r={remaining}' for remaining in (2, 1, 0, 0)
        ]
        assert (
            answers[-1].headers["ratelimit"].split(";t=")[1] == answers[-1].headers["retry-after"]
        )
        for path in ("/health/live", "/metrics"):
            assert client.get(path).status_code == 200
            assert "ratelimit" not in client.get(path).headers


def send_batch(client: TestClient, images: int, *, as_tensor: bool) -> Response:
    """Send a batch of ``images`` images."""
    if as_tensor:
        shape = f"{images},20,30"
        pixels = np.zeros(images * 20 * 30, np.uint8).tobytes()
        headers = {"X-Shape": shape, "Content-Type": "application/octet-stream"}
        return client.post("/predict/batch", content=pixels, headers=headers)
    return client.post("/predict/batch", files=[("file", ("a", IMAGE))] * images)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_batch_costs_as_many_as_it_has_images(linear_folder: Path, as_tensor: bool) -> None:
    """A batch is charged for each image; one that exceeds the quota gets 429 and costs one."""
    settings = Settings(models=(linear_folder,), device="cpu", rate_limit_per_minute=20)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        admitted = send_batch(client, 15, as_tensor=as_tensor)
        assert admitted.status_code == 200
        assert admitted.headers["ratelimit"].startswith('"default";r=5;')
        rejected = send_batch(client, 15, as_tensor=as_tensor)
        detail = assert_problem(rejected, 429, "quota-exceeded")["detail"]
        assert detail.startswith("4 of 20 images per minute are left")
        # 15 images need 11 more tokens, and a token takes 3 seconds.
        assert 31 <= int(rejected.headers["retry-after"]) <= 33
        too_large = send_batch(client, 21, as_tensor=as_tensor)
        assert "at most 20 images" in assert_problem(too_large, 413, "upload-too-large")["detail"]


@pytest.mark.parametrize(
    ("addresses", "same"),
    [
        (("192.0.2.1", "192.0.2.1"), True),
        (("192.0.2.1", "192.0.2.2"), False),
        (("192.0.2.1", "::ffff:192.0.2.1"), True),
        (("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"), True),
        (("2001:db8:0:1::1", "2001:db8:0:2::1"), False),
        (("a-socket", "a-socket"), True),
    ],
)
def test_client_is_known_by_its_network(addresses: tuple[str, str], same: bool) -> None:
    """Each IPv4 address has a bucket; all 2**64 addresses of an IPv6 network share one."""
    app = create_app(Settings(device="cpu", rate_limit_per_minute=9))
    clients = [TestClient(app, client=(address, 1)) for address in addresses]
    left = [client.post("/predict").headers["ratelimit"] for client in clients]
    assert "r=8;" in left[0]
    assert f"r={7 if same else 8};" in left[1]
