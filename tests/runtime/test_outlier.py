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


TAILS = {"center": [1.0, 0.0], "lower": [None, 0.5], "upper": [2.0, None]}


@pytest.mark.parametrize(
    ("row", "bent"),
    [
        ([1.0, 0.0], [1.0, 0.0]),
        ([3.0, 700.0], [3.0, 700.0]),  # as far as the knee, and a tail that is not long
        ([-9.0, -0.5], [-9.0, -0.5]),
        ([1 + 2 * math.e, 0.0], [1 + 2 * 2, 0.0]),
        ([1.0, -0.5 * math.e**3], [1.0, -0.5 * 4]),
    ],
)
def test_long_tails_count_by_their_logarithm(row: list[float], bent: list[float]) -> None:
    straight, curved = detector(unseen=None), detector(unseen=None, tails=TAILS)
    assert curved.score(np.array([row])) == pytest.approx(straight.score(np.array([bent])))


@pytest.mark.parametrize("tails", [None, TAILS])
@given(rows=st.lists(st.tuples(st.floats(), st.floats()), max_size=5))
def test_every_row_gets_a_verdict(
    tails: dict[str, Any] | None, rows: list[tuple[float, float]]
) -> None:
    correlated = detector(precision=[[2.0, -1.0], [-1.0, 1.0]], tails=tails)
    scores = correlated.score(np.array(rows).reshape(-1, 2))
    assert not np.isnan(scores).any()


@pytest.mark.parametrize("told", [CONTENT, CONTENT | {"tails": TAILS}])
def test_comes_back_from_json(told: dict[str, Any]) -> None:
    content = detector(**told).to_json()
    assert Mahalanobis.from_json(content).to_json() == content
    assert orjson.loads(content) == told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "forest"}, "'forest' is not mahalanobis"),
        ({"mean": [1.0]}, "do not belong together"),
        ({"tails": TAILS | {"center": [1.0]}}, "1 tails do not belong to 2 inputs"),
        ({"tails": TAILS | {"upper": [0.0, None]}}, "begins nowhere, or at its center"),
        ({"tails": {"center": [1.0, 0.0]}}, "not a detector"),
        ({"precision": [1.0, 2.0]}, "do not belong together"),
        ({"threshold": None}, "not a detector"),
        ({"mean": [None, 1.0]}, "not finite"),
        ({"impute": "x"}, "not a detector"),
    ],
)
def test_refuses_what_is_no_detector(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        detector(**change)
