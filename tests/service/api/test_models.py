"""GET /models and the paths below it."""

from starlette.testclient import TestClient

from service.bundle import newest_version, read_bundle
from service.settings import Settings


def test_served_model_is_described(linear: TestClient) -> None:
    """The served model is listed with its classes and its input, and its card can be read."""
    (model,) = linear.get("/models").json()["models"]
    expected = {
        "name": "linear",
        "version": "1",
        "class_names": ["left", "middle", "right"],
        "input": {"height": 20, "width": 30, "preprocessing": "item-on-black"},
        "metrics": {},
    }
    assert model.items() >= expected.items()
    card = linear.get("/models/linear/card")
    assert card.text == "# linear\n"
    assert card.headers["content-type"].startswith("text/markdown")


def test_card_of_another_model_is_not_found(linear: TestClient) -> None:
    """The detail of the 404 names the model that is served."""
    response = linear.get("/models/other/card")
    assert response.status_code == 404
    assert response.json()["type"].endswith(":unknown-model")
    assert "'linear'" in response.json()["detail"]


def test_shipped_card_and_metrics_are_served(shipped: TestClient) -> None:
    """Each shipped model's card and test figures are served as they are in its bundle."""
    models = shipped.get("/models").json()["models"]
    for model, folder in zip(models, Settings().models, strict=True):
        bundle = read_bundle(newest_version(folder))
        assert shipped.get(f"/models/{model['name']}/card").text == bundle.card
        assert model["metrics"]["test"] == bundle.manifest.metrics["test"]
