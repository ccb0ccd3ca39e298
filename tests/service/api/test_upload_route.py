"""The query parameters of an upload."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from tests.service.api.test_predict import IMAGE, assert_problem, post


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"top_k": "0"}, "top_k=0: it should be .*; send another top_k"),
        ({"top_k": "4"}, "top_k=4: the model linear has 3 classes; send 1 to 3"),
        ({"top_k": "many"}, "top_k=many: it should be .*; send another top_k"),
        ({"top_k": ""}, "top_k=: it should be .*; send another top_k"),
        ({"coverage": "2"}, "coverage=2: it should be .*; send another coverage"),
        ({"topk": "1"}, "topk=1: this path has no such parameter; leave it out"),
    ],
)
def test_bad_query_is_rejected(linear: TestClient, query: dict[str, str], detail: str) -> None:
    """The error says what was received, what is allowed and what to do."""
    problem = assert_problem(post(linear, IMAGE, **query), 422, "invalid-parameter")
    assert re.fullmatch(detail, problem["detail"])


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
