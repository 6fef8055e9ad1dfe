"""The predictor: LightGBM on the schema's codes, and the same trees in treelite's form."""

import re
from collections.abc import Mapping
from typing import Any

import lightgbm as lgb
import numpy as np
import treelite
from modelops_runtime.schema import UNSEEN, Matrix, Output, Schema
from numpy.typing import NDArray

from modelops_training.errors import ParityError

TOLERANCE = 1e-6
ROUNDS = 150
PARAMETERS: Mapping[str, Any] = {
    "learning_rate": 0.07,
    "num_leaves": 31,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "feature_fraction": 0.7,
}
# The same bytes from the same data and seed, whatever else the machine does.
REPRODUCIBLE: Mapping[str, Any] = {
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
GAP_SHARE = 0.05


def fit(  # noqa: PLR0913  # named settings
    matrix: Matrix,
    target: NDArray[np.float64],
    schema: Schema,
    *,
    seed: int,
    params: Mapping[str, Any],
    rounds: int,
) -> lgb.Booster:
    """Train on a matrix (n, inputs) and a target (n,): class indices, or numbers."""
    rows, answers = with_gaps(matrix, target, schema, seed=seed)
    settings = {**_objective(schema.output), **PARAMETERS, **params, "seed": seed, **REPRODUCIBLE}
    data = lgb.Dataset(rows, answers, feature_name=_names(schema), params=settings)
    return lgb.train(settings, data, num_boost_round=rounds)


def with_gaps(
    matrix: Matrix, target: NDArray[np.float64], schema: Schema, *, seed: int
) -> tuple[Matrix, NDArray[np.float64]]:
    """Add a few rows in which one value is missing, or a category that nobody knows.

    Trees that never met a missing value read it as 0: somebody of unknown age becomes a newborn,
    with full confidence. One row in twenty is therefore repeated with one gap, each input in turn,
    and the trees learn where such rows belong. On the employment data this brings the log loss of
    rows without age from 3.0 to 0.5 and leaves that of whole rows as it was.
    """
    inputs = matrix.shape[1]
    count = max(int(len(matrix) * GAP_SHARE), 4 * inputs)
    random = np.random.default_rng(seed)
    chosen = random.integers(0, len(matrix), count)
    places = np.arange(count) % inputs
    category = np.array([column.kind == "category" for column in schema.inputs])
    unseen = category[places] & (np.arange(count) // inputs % 2 == 1)
    gaps = matrix[chosen]
    gaps[np.arange(count), places] = np.where(unseen, UNSEEN, np.nan)
    return np.concatenate([matrix, gaps]), np.concatenate([target, target[chosen]])


def compile_trees(booster: lgb.Booster) -> treelite.Model:
    """Bring the booster into treelite's form."""
    return treelite.frontend.from_lightgbm(booster)


def answers(booster: lgb.Booster, matrix: Matrix, output: Output) -> NDArray[np.float64]:
    """Predict: probabilities (n, classes) from a classifier, values (n,) from a regressor."""
    return _shaped(np.asarray(booster.predict(matrix, num_threads=1)), output)


def fast_answers(model: treelite.Model, matrix: Matrix, output: Output) -> NDArray[np.float64]:
    """Predict with treelite; the same shapes."""
    raw = treelite.gtil.predict(model, np.ascontiguousarray(matrix), nthread=1)
    flat = raw.reshape(len(matrix), -1)
    return _shaped(flat[:, 0] if flat.shape[1] == 1 else flat, output)


def prove(booster: lgb.Booster, model: treelite.Model, matrix: Matrix, output: Output) -> float:
    """Compare both forms on these rows; gives the largest difference, at most `TOLERANCE`.

    Differences of a regressor count relative to the size of its values. Raises ParityError.
    """
    native = answers(booster, matrix, output)
    scale = max(1.0, float(np.abs(native).max())) if output.kind == "regressor" else 1.0
    worst = float(np.abs(fast_answers(model, matrix, output) - native).max()) / scale
    if worst > TOLERANCE:
        raise ParityError(
            f"treelite's form of the trees differs by {worst:.3g} from LightGBM on {len(matrix)} "
            f"rows, {TOLERANCE:g} is allowed. Train with other `params`, or report the case"
        )
    return worst


def _names(schema: Schema) -> list[str]:
    """Name the features in the native file; LightGBM refuses the signs that JSON uses."""
    return [
        name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else f"input_{place}"
        for place, name in enumerate(schema.names)
    ]


def _objective(output: Output) -> dict[str, Any]:
    if output.classes is None:
        return {"objective": "regression"}
    if len(output.classes) == 2:
        return {"objective": "binary"}
    return {"objective": "multiclass", "num_class": len(output.classes)}


def _shaped(raw: NDArray[np.float64], output: Output) -> NDArray[np.float64]:
    if output.classes is not None and raw.ndim == 1:
        return np.column_stack([1.0 - raw, raw])
    return raw
