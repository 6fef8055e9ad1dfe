"""How good predictions are: AUC, log loss, calibration; error and R2 for numbers.

A model card measures dozens of groups, for which scikit-learn would look at its arguments longer
than it measures: what classifiers are measured by is therefore written here, and the tests hold it
to scikit-learn's.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.metrics import root_mean_squared_error as rmse

CALIBRATION_BINS = 15


def calibration_error(
    hits: NDArray[np.float64], confidence: NDArray[np.float64], bins: int = CALIBRATION_BINS
) -> float:
    """Measure the expected calibration error, 0 to 1.

    `hits` (n,) is 1 where the event came, `confidence` (n,) its predicted probability. Over bins of
    equal width, the mean gap between both, weighted by the rows of each bin (Naeini, Cooper and
    Hauskrecht 2015, "Obtaining well calibrated probabilities using Bayesian binning").
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))


def auc(hits: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Measure the area under the ROC curve, 0 to 1; both (n,), with hits and misses among them.

    It is the chance that a hit has the higher score of the two, half of it where they are equal
    (Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating
    characteristic curve").
    """
    came, others = np.sort(scores[hits]), np.sort(scores[~hits])
    below = np.searchsorted(others, came, "left") + np.searchsorted(others, came, "right")
    return float(below.sum()) / (2 * len(came) * len(others))


def log_loss(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Measure the mean of -log(p) of the classes that came, in nats, as scikit-learn does.

    `codes` (n,) index the classes, `probabilities` are (n, classes); each row is made to sum up to
    1, and no probability counts as 0 or 1: what was impossible and came anyway is not infinite.
    """
    came = probabilities[np.arange(len(codes)), codes] / probabilities.sum(axis=1)
    least = np.finfo(came.dtype).eps
    return float(-np.log(np.clip(came, least, 1 - least)).mean())


def classification(
    codes: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    """Score a classifier. `codes` (n,) index the classes, `probabilities` are (n, classes).

    With two classes AUC and calibration are those of the second's probability. With more, AUC is
    the mean of each class against all others, and calibration that of the class predicted. A metric
    that these rows cannot tell (not all classes came) is left out.
    """
    classes = probabilities.shape[1]
    chosen = probabilities.argmax(axis=1)
    binary = classes == 2
    confidence = probabilities[:, 1] if binary else probabilities.max(axis=1)
    hits = codes if binary else chosen == codes
    metrics = {
        "log_loss": log_loss(codes, probabilities),
        "calibration_error": calibration_error(hits.astype(np.float64), confidence),
        "accuracy": float((chosen == codes).mean()),
    }
    if len(np.unique(codes)) == classes:
        told = [1] if binary else range(classes)
        areas = [auc(codes == each, probabilities[:, each]) for each in told]
        metrics = {"auc": float(np.mean(areas)), **metrics}
    return metrics


def regression(truth: NDArray[np.float64], values: NDArray[np.float64]) -> dict[str, float]:
    """Score predicted numbers, both (n,), in the target's unit (`r2` has none)."""
    return {
        "rmse": float(rmse(truth, values)),
        "mae": float(mean_absolute_error(truth, values)),
        "r2": float(r2_score(truth, values)),
    }
