"""An offline run from a bucket to a bucket, on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from pyarrow import fs, parquet

from service.offline.classify import Classify
from service.offline.parts import find_parts
from service.offline.storage import Storage
from service.settings import Settings

server = pytest.importorskip("moto.server", reason="moto[server] is not installed")


@pytest.fixture
def bucket(images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.FileSystem]:
    """S3 server whose bucket "shop" holds the images below "in"."""
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    system = fs.S3FileSystem(endpoint_override=url, allow_bucket_creation=True)
    system.create_dir("shop")
    fs.copy_files(str(images), "shop/in", destination_filesystem=system)
    yield system
    moto.stop()


def test_bucket_is_read_and_written(
    bucket: fs.FileSystem, images: Path, settings: Settings
) -> None:
    """Each object of a bucket has a row in the answers, which are in the bucket too."""
    parts = find_parts(Storage(), "s3://shop/in", "s3://shop/out")
    with closing(Classify(settings, None, threads=1)) as classify:
        counts = [classify(asdict(part)) for part in parts]
    rows = parquet.read_table("shop/out", filesystem=bucket).to_pylist()
    files = [path for path in images.rglob("*") if path.is_file() and path.name[0] != "."]
    expected = {f"s3://shop/in/{path.relative_to(images).as_posix()}" for path in files}
    assert {row["path"] for row in rows} == expected
    assert counts[0]["images"] == len(rows)
    assert find_parts(Storage(), "s3://shop/in", "s3://shop/out") == []
    photo = next(row for row in rows if row["path"].endswith("more/photo 100 % [1].png"))
    assert photo["class_name"]
