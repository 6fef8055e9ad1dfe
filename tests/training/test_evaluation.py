import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_training import evaluation
from sklearn.metrics import log_loss, roc_auc_score

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


@given(st.data(), st.integers(2, 4), st.sampled_from([np.float64, np.float32]))
def test_classifiers_are_measured_as_scikit_learn_does(
    data: st.DataObject, classes: int, width: type
) -> None:
    # Whole tenths, so that there are ties; the first row of each class has all classes come.
    weights = st.lists(st.integers(0, 10), min_size=classes, max_size=classes).filter(any)
    rows = data.draw(st.lists(weights, min_size=classes, max_size=30))
    more = data.draw(
        st.lists(
            st.integers(0, classes - 1),
            min_size=len(rows) - classes,
            max_size=len(rows) - classes,
        )
    )
    codes = np.array([*range(classes), *more])
    raw: np.ndarray = np.array(rows, width)
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    found = evaluation.classification(codes, probabilities)
    whole = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert found["log_loss"] == pytest.approx(log_loss(codes, whole), rel=1e-5, abs=1e-6)
    if classes == 2:
        expected = roc_auc_score(codes, probabilities[:, 1])
    else:
        hits = np.eye(classes)[codes]
        expected = roc_auc_score(hits, probabilities, average="macro")
    assert found["auc"] == pytest.approx(expected, abs=1e-12)


def test_numbers() -> None:
    metrics = evaluation.regression(np.array([1.0, 2, 3]), np.array([1.0, 2, 5]))
    assert metrics["mae"] == pytest.approx(2 / 3)
    assert metrics["rmse"] == pytest.approx((4 / 3) ** 0.5)
