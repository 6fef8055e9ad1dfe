"""What is wrong with a user's model and data, said before anything is registered."""

import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from modelops_training.errors import DataError, TrainingWarning
from modelops_training.original import Original

# These use no chance where the parameter has one of the values.
_SURE: Final[Mapping[str, tuple[str, frozenset[str | None]]]] = {
    **dict.fromkeys(
        ("LogisticRegression", "LogisticRegressionCV"),
        ("solver", frozenset({"lbfgs", "newton-cg", "newton-cholesky"})),
    ),
    **dict.fromkeys(
        ("Ridge", "RidgeClassifier"),
        ("solver", frozenset({"auto", "svd", "cholesky", "lsqr", "sparse_cg", "lbfgs"})),
    ),
    **dict.fromkeys(
        ("Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"), ("selection", frozenset({"cyclic"}))
    ),
    **dict.fromkeys(("Lars", "LassoLars"), ("jitter", frozenset({None}))),
}


def arranged(original: Original, frame: pd.DataFrame) -> pd.DataFrame:
    """Give the columns that the model was fitted on, in its order. Raises DataError."""
    fitted = original.names
    if fitted is None:
        count = getattr(original.model, "n_features_in_", frame.shape[1])
        if count != frame.shape[1]:
            raise DataError(f"the model was fitted on {count} columns, X has {frame.shape[1]}")
        return frame
    have = [str(name) for name in frame.columns]
    lacking = [name for name in fitted if name not in have]
    extra = [name for name in have if name not in fitted]
    if not lacking and not extra:
        return frame.loc[:, list(fitted)]
    if len(lacking) == len(extra) == len(have):
        # Fitted on an array: its columns have names of the library's, or of ours.
        return frame
    raise DataError(
        f"X has not the columns that the model was fitted on: {lacking or 'none'} are missing,"
        f" {extra or 'none'} are unknown to it; give the X that you called fit with"
    )


def target_of(target: Any, frame: pd.DataFrame) -> pd.Series:
    """Take y as a named column beside X. Raises DataError."""
    values = target.to_numpy() if isinstance(target, pd.DataFrame) else target
    if getattr(values, "ndim", 1) == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if getattr(values, "ndim", 1) != 1:
        raise DataError(f"y has shape {values.shape}; one target is predicted, give one column")
    if len(values) != len(frame):
        raise DataError(f"X has {len(frame)} rows and y has {len(values)}; give one for each row")
    name = getattr(target, "name", None) or "target"
    if name in frame.columns:
        raise DataError(f"y is called {name!r}, as a column of X is: take the target out of X")
    return pd.Series(np.asarray(values), index=frame.index, name=str(name))


def answers_of(original: Original, frame: pd.DataFrame) -> NDArray[Any]:
    """Ask the model about rows, as a server will.

    Gives probabilities (n, classes), values (n,), or labels of what gives no more. Raises DataError
    when it does not take them, or answers with no number.
    """
    way_out = (
        "a server gives it a frame; a ColumnTransformer gives a single column to what takes one"
    )
    try:
        answers = original.answers(frame)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{original.title} does not take the rows of X ({said}): {way_out}"
        ) from error
    if len(answers) != len(frame):
        raise DataError(f"{original.title} answers {len(answers)} of {len(frame)} rows: {way_out}")
    if answers.dtype.kind == "f" and not (finite := np.isfinite(answers)).all():
        row = int(np.argwhere(~finite)[0][0])
        raise DataError(
            f"{original.title} answers {np.atleast_1d(answers[row]).tolist()} to row"
            f" {frame.index[row]} of X: fit it so that all rows get a finite number"
        )
    return answers


def warn_of_chance(model: Any) -> None:
    """Warn of estimators whose random numbers nobody can repeat."""
    if not isinstance(model, BaseEstimator):
        return
    parts = {"": model, **model.get_params(deep=True)}
    unseeded = sorted(
        {
            type(part).__name__
            for part in parts.values()
            if isinstance(part, BaseEstimator)
            and type(part).__module__.startswith("sklearn.")
            and "random_state" in (own := part.get_params(deep=False))
            and own["random_state"] is None
            and _by_chance(part, own)
        }
    )
    if unseeded:
        warnings.warn(
            f"{', '.join(unseeded)}: random_state is not set, so the same data will give another"
            " model; set a number to be able to train it again",
            TrainingWarning,
            stacklevel=3,
        )


def _by_chance(part: BaseEstimator, own: Mapping[str, Any]) -> bool:
    name, values = _SURE.get(type(part).__name__, ("", frozenset()))
    if name:
        return own[name] not in values
    # Encoders and imputers draw nothing when fitted.
    return not hasattr(part, "transform") or hasattr(part, "predict")
