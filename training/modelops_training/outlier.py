"""The outlier detector: a Mahalanobis distance whose covariance is shrunk.

Categories enter by their codes, like numbers. One column for each level would cost a matrix of the
square of all levels on every row served, for rare levels that the drift detector counts anyway;
what a distance adds is the unusual combination and the impossible number, and both show in codes.
"""

import numpy as np
from modelops_runtime.outlier import Mahalanobis
from modelops_runtime.schema import UNSEEN, Matrix, Schema
from sklearn.covariance import ledoit_wolf

QUANTILE = 0.99
# An unseen category is as strange as a number this many standard deviations off.
UNSEEN_SIGMAS = 6.0


def fit(matrix: Matrix, held_out: Matrix, schema: Schema, *, quantile: float) -> Mahalanobis:
    """Estimate the detector from rows (n, inputs); its threshold and rate from rows held out.

    The covariance of the standardised inputs is shrunk by the amount that Ledoit and Wolf (2004,
    "A well-conditioned estimator for large-dimensional covariance matrices") derive. `quantile`
    of the training rows lie within the threshold; `reference_rate` is the share of the rows held
    out that do not. Missing values count as the column's median.
    """
    known = np.where(matrix == UNSEEN, np.nan, matrix) if _any_category(schema) else matrix
    impute = np.nanmedian(known, axis=0)
    rows = np.where(np.isnan(known), impute, known)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    spread[spread == 0] = 1.0
    covariance, _ = ledoit_wolf((rows - mean) / spread, assume_centered=True)
    precision = np.linalg.inv(covariance) / np.outer(spread, spread)
    category = np.array([column.kind == "category" for column in schema.inputs])
    detector = Mahalanobis(
        mean=mean,
        # Symmetric to the last bit, so that every machine multiplies the same numbers.
        precision=(precision + precision.T) / 2,
        impute=impute,
        unseen=np.where(category, mean + UNSEEN_SIGMAS * spread, np.nan),
        threshold=0.0,
        reference_rate=0.0,
    )
    threshold = float(np.quantile(detector.score(matrix), quantile, method="higher"))
    return Mahalanobis(
        mean=detector.mean,
        precision=detector.precision,
        impute=detector.impute,
        unseen=detector.unseen,
        threshold=threshold,
        reference_rate=float((detector.score(held_out) > threshold).mean()),
    )


def _any_category(schema: Schema) -> bool:
    return any(column.kind == "category" for column in schema.inputs)
