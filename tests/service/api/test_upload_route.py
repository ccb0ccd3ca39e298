"""The query parameters of an upload."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.service.api.test_predict import IMAGE, assert_problem, post


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"top_k": "0"}, "top_k"),
        ({"top_k": "4"}, "1 to 3"),
        ({"top_k": "many"}, "many"),
        ({"top_k": ""}, "top_k"),
        ({"topk": "1"}, "topk"),
    ],
)
def test_bad_query_is_rejected(linear: TestClient, query: dict[str, str], named: str) -> None:
    """A parameter that is out of range, of a wrong type or unknown is rejected with a reason."""
    assert named in assert_problem(post(linear, IMAGE, **query), 422, "invalid-parameter")["detail"]


def test_parameter_is_given_once(linear: TestClient) -> None:
    """A parameter that is given twice is rejected."""
    response = linear.post("/predict?top_k=1&top_k=2", files={"file": IMAGE})
    assert "top_k is given 2 times" in assert_problem(response, 422, "invalid-parameter")["detail"]


def test_many_parameters_are_rejected(linear: TestClient) -> None:
    """A query with too many parameters is rejected."""
    response = linear.post(
        "/predict", params=dict.fromkeys(map(str, range(1000)), ""), files={"file": IMAGE}
    )
    assert "has 1000 parameters" in assert_problem(response, 422, "invalid-parameter")["detail"]
