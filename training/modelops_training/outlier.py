"""The outlier detector: a Mahalanobis distance whose covariance is shrunk and whose tails are bent.

Categories enter by their codes, like numbers. One column for each level would cost a matrix of the
square of all levels on every row served, for rare levels that the drift detector counts anyway;
what a distance adds is the unusual combination and the impossible number, and both show in codes.
"""

from dataclasses import replace

import numpy as np
from modelops_runtime.outlier import Mahalanobis, OutlierDetector, Tails
from modelops_runtime.schema import UNSEEN, Matrix, Schema
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

QUANTILE = 0.995
# A tail is long whose distance from the median at 99.9 % is this many times that at 90 %, where its
# knee is. Of a normal distribution that is 2.4.
LONG_TAIL = 3.0
KNEE, END = 0.9, 0.999
# An unseen category is as strange as a number this many standard deviations off.
UNSEEN_SIGMAS = 6.0
# What is injected to measure the detector, into as many rows for each input.
INJECTED_ROWS = 1_000
INJECTED_SIGMAS = 6.0
UNIT_ERROR = 1_000


def fit(matrix: Matrix, held_out: Matrix, schema: Schema, *, quantile: float) -> Mahalanobis:
    """Estimate the detector from rows (n, inputs); its threshold and rate from rows held out.

    The covariance of the standardised inputs is shrunk by the amount that Ledoit and Wolf (2004,
    "A well-conditioned estimator for large-dimensional covariance matrices") derive. `quantile`
    of the training rows lie within the threshold; `reference_rate` is the share of the rows held
    out that do not. Missing values count as the column's median, and long tails of numbers as
    their logarithms: a threshold that lets incomes pass would let everything else pass as well.
    """
    impute = imputed(matrix, schema)
    category = np.array([column.kind == "category" for column in schema.inputs])
    rows = np.where(np.isnan(matrix) | (category & (matrix == UNSEEN)), impute, matrix)
    tails = _tails(rows, category)
    rows = rows if tails is None else tails.bend(rows)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    spread[spread == 0] = 1.0
    covariance, _ = ledoit_wolf((rows - mean) / spread, assume_centered=True)
    precision = np.linalg.inv(covariance) / np.outer(spread, spread)
    detector = Mahalanobis(
        mean=mean,
        # Symmetric to the last bit, so that every machine multiplies the same numbers.
        precision=(precision + precision.T) / 2,
        impute=impute,
        unseen=unseen(schema, impute, mean + UNSEEN_SIGMAS * spread),
        threshold=0.0,
        reference_rate=0.0,
        tails=tails,
    )
    threshold = float(np.quantile(detector.score(matrix), quantile, method="higher"))
    rate = float((detector.score(held_out) > threshold).mean())
    return replace(detector, threshold=threshold, reference_rate=rate)


def imputed(matrix: Matrix, schema: Schema) -> NDArray[np.float64]:
    """Tell what stands for a missing value of each column: its median, of those that are read."""
    category = np.array([column.kind == "category" for column in schema.inputs])
    opaque = np.array([column.opaque for column in schema.inputs])
    known = np.where(category & (matrix == UNSEEN), np.nan, matrix)
    found: NDArray[np.float64] = np.nanmedian(np.where(opaque, 0.0, known), axis=0)
    return found


def unseen(
    schema: Schema, impute: NDArray[np.float64], far: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Tell what stands for an unseen category: something far; NaN for numbers.

    What only the model reads is always unseen, and nothing strange.
    """
    kinds = {True: far, False: np.full_like(far, np.nan)}
    return np.array(
        [
            (impute if column.opaque else kinds[column.kind == "category"])[place]
            for place, column in enumerate(schema.inputs)
        ]
    )


def recall(
    detector: OutlierDetector, rows: Matrix, schema: Schema, *, seed: int = 0
) -> dict[str, float]:
    """Measure which share of injected outliers is found; `rows` (n, inputs) are of no training.

    One input of a row is spoiled at a time. `outlier_recall_6_sigma` is of numbers moved by six
    standard deviations, up or down; `outlier_recall_x1000` of numbers in a wrong unit, a thousand
    times as large; `outlier_recall_unseen` of categories that nobody knows. Each is the mean over
    the inputs, and left out where there is none to spoil.
    """
    random = np.random.default_rng(seed)
    chosen = rows[:INJECTED_ROWS]
    found: dict[str, list[float]] = {}
    for place, column in enumerate(schema.inputs):
        values = chosen[:, place]
        if column.opaque or np.isnan(values).all():
            continue
        if column.kind == "category":
            spoiled = {"unseen": np.full(len(values), UNSEEN)}
        else:
            off = INJECTED_SIGMAS * np.nanstd(values) * random.choice([-1, 1], len(values))
            spoiled = {"6_sigma": values + off, "x1000": values * UNIT_ERROR}
        for name, wrong in spoiled.items():
            # A thousand times nothing is nothing, and what is missing stays missing.
            changed = ~np.isnan(wrong) & (wrong != values)
            if changed.any():
                rows_with = chosen[changed]
                rows_with[:, place] = wrong[changed]
                found.setdefault(name, []).append(float(detector.flag(rows_with).mean()))
    return {f"outlier_recall_{name}": float(np.mean(shares)) for name, shares in found.items()}


def _tails(rows: Matrix, category: NDArray[np.bool_]) -> Tails | None:
    """Find the long tails of numbers; None when there are none."""
    quantiles = np.quantile(rows, [1 - END, 1 - KNEE, 0.5, KNEE, END], axis=0)
    center = quantiles[2]
    lower_end, lower, upper, upper_end = np.abs(quantiles[[0, 1, 3, 4]] - center)
    lower[category | (lower == 0) | (lower_end <= LONG_TAIL * lower)] = np.inf
    upper[category | (upper == 0) | (upper_end <= LONG_TAIL * upper)] = np.inf
    if np.isinf([lower, upper]).all():
        return None
    return Tails(center, lower, upper)
