"""The metrics of GET /metrics, and docs/monitoring.md, which lists them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.bundle import read_bundle
from service.imaging.model_input import InputSpec, ModelInput
from service.inference.classification import Classification
from service.inference.predictor import ImageAnswer
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.record import Record
from tests.service.api.test_predict import IMAGE, post
from tests.service.bundles import write_linear_bundle
from tests.service.conftest import wait_until_ready
from tests.service.images import encode

# The model of photos takes white photos for none of its classes.
WHITE, BLACK = (encode(np.full((24, 32), value, np.uint8)) for value in (255, 0))
PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"
MODEL = 'device="cpu",name="linear",provider="CPUExecutionProvider",version="1"'


def samples(client: TestClient) -> dict[str, float]:
    """Read all metrics by name and labels."""
    return parse(client.get("/metrics").text)


def parse(page: str) -> dict[str, float]:
    """Read the values of a page of metrics by name and labels."""
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_one_answer_is_counted_in_every_metric(linear_folder: Path) -> None:
    """After one upload each histogram has one value, and size, class and model are as expected."""
    with TestClient(create_app(Settings(models=(linear_folder,), device="cpu"))) as client:
        wait_until_ready(client)
        class_name = post(client, IMAGE).json()["class_name"]
        values = samples(client)
    of_uploads = "decode_seconds", "queue_seconds", "upload_bytes", "image_pixels"
    of_models = "inference_seconds", "batch_size", "confidence"
    assert {values[f"service_{name}_count"] for name in of_uploads} == {1}
    assert {values[f'service_{name}_count{{model="linear"}}'] for name in of_models} == {1}
    assert values['service_request_duration_seconds_count{route="/predict"}'] == 1
    assert values["service_upload_bytes_sum"] == len(IMAGE)
    assert values["service_image_pixels_sum"] == 20 * 30
    assert values[f'service_predictions_total{{class_name="{class_name}",model="linear"}}'] == 1
    assert values['service_out_of_distribution_total{model="linear"}'] == 0
    assert values[f"service_model_info{{{MODEL}}}"] == 1
    gauges = "service_ready", "service_queue_depth", "service_requests_in_flight"
    assert [values[name] for name in gauges] == [1, 0, 1]


def test_images_that_look_like_no_class_are_counted(colours: TestClient) -> None:
    """An image whose answer has ``in_distribution`` false counts, another one does not."""
    series = 'service_out_of_distribution_total{model="colours"}'
    before = samples(colours)[series]
    answers = [post(colours, image).json() for image in (WHITE, BLACK, BLACK)]
    assert [answer["in_distribution"] for answer in answers] == [False, True, True]
    assert samples(colours)[series] == before + 1


def test_images_of_a_tensor_are_not_decoded(colours: TestClient) -> None:
    """They count in the times of the model, but not in those of decoding."""
    before = samples(colours)
    headers = {"X-Shape": "2,24,32,3", "Content-Type": "application/octet-stream"}
    answer = colours.post("/predict/batch", content=bytes(2 * 24 * 32 * 3), headers=headers)
    assert answer.status_code == 200, answer.text
    after = samples(colours)
    name = "service_decode_seconds_count"
    assert after[name] == before[name]
    name = 'service_inference_seconds_count{model="colours"}'
    assert after[name] == before.get(name, 0) + 2


@pytest.mark.parametrize("query", ["top_k=99", "coverage=0.999"])
def test_request_with_a_wrong_parameter_is_no_prediction(colours: TestClient, query: str) -> None:
    """A request that is answered with 422 counts as no prediction."""
    before = samples(colours)
    assert colours.post(f"/predict?{query}", content=WHITE).status_code == 422
    batch = colours.post(f"/predict/batch?{query}", files=[("file", ("a", WHITE))])
    assert batch.status_code == 422
    predictions = {n: v for n, v in samples(colours).items() if "predictions" in n}
    assert predictions == {n: v for n, v in before.items() if "predictions" in n}


def test_each_value_goes_to_its_own_metric(linear_folder: Path) -> None:
    """With a different value for each step, every sum and count is the value of its own step."""
    app = create_app(Settings(models=(linear_folder,), device="cpu"))
    metrics: Metrics = app.state.metrics
    spec = InputSpec("item-on-black", (20, 30))
    answer = ImageAnswer(
        Classification(read_bundle(linear_folder).manifest, [0.125, 0.75, 0.125], 1, None, None),
        ModelInput(np.zeros((20, 30), np.uint8), spec, source_pixels=1200),
        batch_size=3,
        decode_seconds=0.25,
        queue_seconds=0.5,
        inference_seconds=2.0,
    )
    record = Record(upload_bytes=500, answers=[answer])
    metrics.observe("/predict", 200, ["overloaded"], 4.0, record)
    values = parse(metrics.render().decode())
    assert {name: value for name, value in values.items() if value and "_bucket" not in name} == {
        'service_requests_total{route="/predict",status="200"}': 1,
        'service_rejections_total{reason="overloaded"}': 1,
        'service_predictions_total{class_name="middle",model="linear"}': 1,
        'service_request_duration_seconds_count{route="/predict"}': 1,
        'service_request_duration_seconds_sum{route="/predict"}': 4,
        "service_decode_seconds_count": 1,
        "service_decode_seconds_sum": 0.25,
        "service_queue_seconds_count": 1,
        "service_queue_seconds_sum": 0.5,
        'service_inference_seconds_count{model="linear"}': 1,
        'service_inference_seconds_sum{model="linear"}': 2,
        'service_batch_size_count{model="linear"}': 1,
        'service_batch_size_sum{model="linear"}': 3,
        'service_confidence_count{model="linear"}': 1,
        'service_confidence_sum{model="linear"}': 0.75,
        "service_upload_bytes_count": 1,
        "service_upload_bytes_sum": 500,
        "service_image_pixels_count": 1,
        "service_image_pixels_sum": 1200,
    }


def test_bytes_of_every_kind_of_upload_are_summed(linear: TestClient) -> None:
    """The files of a form, of a batch too, and the bytes of a tensor count towards the bytes."""
    name, pixels = "service_upload_bytes_sum", "service_image_pixels_sum"
    before = samples(linear)[name]
    post(linear, IMAGE)
    linear.post("/predict/batch", files=[("file", ("a", IMAGE)), ("file", ("b", b"no image"))])
    headers = {"Content-Type": "application/octet-stream", "X-Shape": "2,20,30"}
    pixels_before = samples(linear)[pixels]
    answer = linear.post("/predict/batch", content=bytes(1200), headers=headers)
    assert answer.status_code == 200
    assert samples(linear)[name] - before == 2 * len(IMAGE) + len(b"no image") + 1200
    assert samples(linear)[pixels] - pixels_before == 1200


def test_version_that_was_replaced_has_the_value_0(tmp_path: Path) -> None:
    """After a swap, the new version of a model has the value 1, and the old one 0."""
    write_linear_bundle(tmp_path / "1")
    app = create_app(Settings(models=(tmp_path,), device="cpu"))
    with TestClient(app) as client:
        wait_until_ready(client)
        assert samples(client)[f"service_model_info{{{MODEL}}}"] == 1
        write_linear_bundle(tmp_path / "2", version="2")
        assert client.portal is not None
        client.portal.call(app.state.predictor.models.reload)
        values = samples(client)
    new = MODEL.replace('version="1"', 'version="2"')
    assert values[f"service_model_info{{{MODEL}}}"] == 0
    assert values[f"service_model_info{{{new}}}"] == 1


def test_series_begin_at_zero(linear_folder: Path) -> None:
    """The series of each reason and class is 0 before its first event; none has a creation time."""
    with TestClient(create_app(Settings(models=(linear_folder,), device="cpu"))) as client:
        wait_until_ready(client)
        values = samples(client)
    assert values['service_rejections_total{reason="inference-failed"}'] == 0
    assert values['service_rejections_total{reason="internal-error"}'] == 0
    assert len([name for name in values if name.startswith("service_predictions_total")]) == 3
    assert not [name for name in values if "_created" in name]


def test_page_lists_every_metric(linear: TestClient) -> None:
    """docs/monitoring.md has the name, type, labels and help text of each metric."""
    post(linear, IMAGE)
    rows = []
    for family in text_string_to_metric_families(linear.get("/metrics").text):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        named = ", ".join(f"`{label}`" for label in labels)
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append(f"| `{name}` | {family.type} | {named} | {family.documentation} |")
    lines = PAGE.read_text().splitlines()
    assert [line for line in lines if line.startswith("| `service_")] == rows


def test_service_is_ready_if_every_worker_is(tmp_path: Path, linear_folder: Path) -> None:
    """One worker that is not ready makes the service not ready."""
    (tmp_path / "gauges-1.json").write_text(json.dumps({"service_ready": [[[], [0.0]]]}))
    settings = Settings(models=(linear_folder,), device="cpu")
    with TestClient(create_app(settings, metrics_folder=str(tmp_path))) as client:
        wait_until_ready(client)
        assert samples(client)["service_ready"] == 0
