"""Fits the kind of outlier detector that was asked for."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import numpy as np
import treelite
from modelops_runtime import flavor
from modelops_runtime.detectors import IsolationForest, Neighbours
from modelops_runtime.outlier import OutlierDetector, filled
from modelops_runtime.schema import UNSEEN, Matrix, Schema
from numpy.typing import NDArray

from modelops_training import outlier

Kind: TypeAlias = Literal["mahalanobis", "isolation_forest", "neighbours"]

TREES: Final = 100
REFERENCE_ROWS: Final = 500
NEAREST: Final = 5


def fit(  # noqa: PLR0913  # named settings
    kind: Kind, matrix: Matrix, held_out: Matrix, schema: Schema, *, quantile: float, seed: int
) -> OutlierDetector:
    """Fit to rows (n, inputs), of which `quantile`, or that of the rows held out, is no outlier.

    `mahalanobis` finds most impossible numbers and costs least. `isolation_forest` finds rows that
    few cuts part from the others, `neighbours` rows far from a sample of 500: what each of them
    costs is told in `modelops_runtime.detectors`.
    """
    if kind == "mahalanobis":
        return outlier.fit(matrix, held_out, schema, quantile=quantile)
    impute, unseen = _fillings(matrix, schema)
    rows = filled(matrix, impute, unseen)
    detector: IsolationForest | Neighbours
    if kind == "isolation_forest":
        from sklearn import ensemble  # noqa: PLC0415  # slow to load, and seldom asked for

        forest = ensemble.IsolationForest(n_estimators=TREES, random_state=seed).fit(rows)
        trees = treelite.sklearn.import_model(forest).serialize_bytes()
        detector = IsolationForest.of(
            trees, impute=impute, unseen=unseen, threshold=0.0, reference_rate=0.0
        )
        threshold = float(np.quantile(detector.score(matrix), quantile, method="higher"))
        rate = float((detector.score(held_out) > threshold).mean())
        return IsolationForest.of(
            trees, impute=impute, unseen=unseen, threshold=threshold, reference_rate=rate
        )
    places = np.random.default_rng(seed).permutation(len(rows))[:REFERENCE_ROWS]
    spread = rows.std(axis=0)
    spread[spread == 0] = 1.0
    fields = {
        "rows": rows[np.sort(places)] / spread,
        "spread": spread,
        "impute": impute,
        "unseen": unseen,
    }
    nearest = min(NEAREST, len(places))
    detector = Neighbours(**fields, nearest=nearest, threshold=0.0, reference_rate=0.0)
    # Reference rows are their own neighbours: only others tell what is far.
    scores = detector.score(held_out)
    threshold = float(np.quantile(scores, quantile, method="higher"))
    rate = float((scores > threshold).mean())
    return Neighbours(**fields, nearest=nearest, threshold=threshold, reference_rate=rate)


def files(detector: OutlierDetector) -> Mapping[str, bytes]:
    """Write a detector's own files, name to content."""
    trees = {flavor.TREELITE: detector.trees} if isinstance(detector, IsolationForest) else {}
    return {flavor.DETECTOR: detector.to_json(), **trees}


def _fillings(matrix: Matrix, schema: Schema) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tell what stands for a missing value, and for an unseen category, in each column."""
    impute = outlier.imputed(matrix, schema)
    category = np.array([column.kind == "category" for column in schema.inputs])
    rows = np.where(np.isnan(matrix) | (category & (matrix == UNSEEN)), impute, matrix)
    far = rows.mean(axis=0) + outlier.UNSEEN_SIGMAS * rows.std(axis=0)
    return impute, outlier.unseen(schema, impute, far)
