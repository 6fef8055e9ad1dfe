import numpy as np
import pytest
from modelops_training import evaluation

pytestmark = pytest.mark.unit


def test_calibration_error_is_the_gap_weighted_by_rows() -> None:
    confidence = np.array([0.1] * 30 + [0.9] * 10)
    hits = np.array([1.0] * 6 + [0.0] * 24 + [1.0] * 5 + [0.0] * 5)
    # 0.1 promised and 0.2 came, in 30 of 40 rows; 0.9 promised and 0.5 came, in 10 of 40.
    assert evaluation.calibration_error(hits, confidence) == pytest.approx(0.1 * 0.75 + 0.4 * 0.25)
    assert evaluation.calibration_error(np.ones(4), np.ones(4)) == 0


def test_a_perfect_and_a_blind_classifier() -> None:
    codes = np.array([0, 1, 0, 1])
    perfect = evaluation.classification(codes, np.eye(2)[codes])
    assert (perfect["auc"], perfect["accuracy"]) == (1, 1)
    assert perfect["log_loss"] == pytest.approx(0, abs=1e-9)
    blind = evaluation.classification(codes, np.full((4, 2), 0.5))
    assert blind["log_loss"] == pytest.approx(np.log(2))
    assert blind["auc"] == 0.5


def test_three_classes_and_rows_of_one_class_only() -> None:
    codes = np.array([0, 1, 2, 2])
    three = evaluation.classification(codes, np.eye(3)[codes])
    assert three["auc"] == 1
    one = evaluation.classification(np.zeros(4, dtype=np.int64), np.full((4, 2), 0.5))
    assert "auc" not in one


def test_numbers() -> None:
    metrics = evaluation.regression(np.array([1.0, 2, 3]), np.array([1.0, 2, 5]))
    assert metrics["mae"] == pytest.approx(2 / 3)
    assert metrics["rmse"] == pytest.approx((4 / 3) ** 0.5)
