"""The metrics of GET /metrics, and docs/monitoring.md, which lists them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.api.test_predict import IMAGE, post
from tests.service.conftest import wait_until_ready
from tests.service.images import encode

# The model of photos takes white photos for none of its classes.
WHITE, BLACK = (encode(np.full((24, 32), value, np.uint8)) for value in (255, 0))
PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"
MODEL = 'device="cpu",name="linear",provider="CPUExecutionProvider",version="1"'


def samples(client: TestClient) -> dict[str, float]:
    """Read all metrics by name and labels."""
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
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
    assert [post(colours, image).json()["in_distribution"] for image in (WHITE, BLACK)] == [
        False,
        True,
    ]
    assert samples(colours)[series] == before + 1


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
