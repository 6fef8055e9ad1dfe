"""The Mahalanobis distance."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_runtime.outlier import DetectorError, Mahalanobis

pytestmark = pytest.mark.unit

CONTENT: dict[str, Any] = {
    "kind": "mahalanobis",
    "mean": [1.0, 2.0],
    "precision": [[2.0, 0.0], [0.0, 1.0]],
    "impute": [1.0, 3.0],
    "unseen": [None, 5.0],
    "threshold": 9.0,
    "reference_rate": 0.01,
}


def detector(**changes: Any) -> Mahalanobis:
    return Mahalanobis.from_json(orjson.dumps(CONTENT | changes))


@pytest.mark.parametrize(
    ("row", "distance"),
    [
        ([1.0, 2.0], 0.0),
        ([2.0, 2.0], 2.0),
        ([1.0, 5.0], 9.0),
        ([math.nan, math.nan], 1.0),
        ([-1.0, -1.0], 8.0 + 9.0),
        ([1e300, 2.0], math.inf),
    ],
)
def test_scores(row: list[float], distance: float) -> None:
    assert detector().score(np.array([row])).tolist() == [distance]
    assert detector().flag(np.array([row])).tolist() == [distance > 9]


def test_the_code_of_an_unseen_category_stays_when_nothing_stands_for_it() -> None:
    assert detector(unseen=None).score(np.array([[1.0, -1.0]])).tolist() == [9.0]


def test_correlated_inputs_count_together() -> None:
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    precision = np.linalg.inv(covariance).tolist()
    tilted = detector(mean=[0.0, 0.0], precision=precision, unseen=None)
    along, across = tilted.score(np.array([[1.0, 1.0], [1.0, -1.0]]))
    assert (along, across) == (pytest.approx(1 / 0.95), pytest.approx(20))


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=5))
def test_every_row_gets_a_verdict(rows: list[tuple[float, float]]) -> None:
    correlated = detector(precision=[[2.0, -1.0], [-1.0, 1.0]])
    scores = correlated.score(np.array(rows).reshape(-1, 2))
    assert not np.isnan(scores).any()


def test_comes_back_from_json() -> None:
    content = detector().to_json()
    assert Mahalanobis.from_json(content).to_json() == content
    assert orjson.loads(content) == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "forest"}, "'forest' is not mahalanobis"),
        ({"mean": [1.0]}, "do not belong together"),
        ({"precision": [1.0, 2.0]}, "do not belong together"),
        ({"threshold": None}, "not a detector"),
        ({"mean": [None, 1.0]}, "not finite"),
        ({"impute": "x"}, "not a detector"),
    ],
)
def test_refuses_what_is_no_detector(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        detector(**change)
