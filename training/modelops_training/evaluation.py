"""How good predictions are: AUC, log loss, calibration; error and R2 for numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, mean_absolute_error, r2_score, roc_auc_score
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


def classification(
    codes: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    """Score a classifier. `codes` (n,) index the classes, `probabilities` are (n, classes).

    With two classes the calibration is that of the second's probability, with more that of the
    class predicted. A metric that these rows cannot tell (one class only) is left out.
    """
    classes = probabilities.shape[1]
    chosen = probabilities.argmax(axis=1)
    binary = classes == 2
    confidence = probabilities[:, 1] if binary else probabilities.max(axis=1)
    hits = codes if binary else chosen == codes
    metrics = {
        # Those of 32 bits sum up to 1 with 7 digits only, which scikit-learn complains of.
        "log_loss": float(
            log_loss(
                codes, probabilities / probabilities.sum(axis=1)[:, None], labels=range(classes)
            )
        ),
        "calibration_error": calibration_error(hits.astype(np.float64), confidence),
        "accuracy": float((chosen == codes).mean()),
    }
    if len(np.unique(codes)) == classes:
        scores = confidence if binary else probabilities
        auc = roc_auc_score(codes, scores, multi_class="ovr", labels=_labels(classes))
        metrics = {"auc": float(auc), **metrics}
    return metrics


def _labels(classes: int) -> Sequence[int] | None:
    return None if classes == 2 else range(classes)


def regression(truth: NDArray[np.float64], values: NDArray[np.float64]) -> dict[str, float]:
    """Score predicted numbers, both (n,), in the target's unit (`r2` has none)."""
    return {
        "rmse": float(rmse(truth, values)),
        "mae": float(mean_absolute_error(truth, values)),
        "r2": float(r2_score(truth, values)),
    }
