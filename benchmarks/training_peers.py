"""Predictors of the employment data: trains the one that is named, and prints how good it is.

All of them learn from the rows that `modelops-train` learns from, on one thread and with their
library's defaults, and are measured on the rows that it is measured on.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Self

import numpy as np
from modelops_runtime.schema import Matrix, Schema
from modelops_training import evaluation, inputs, predictor
from modelops_training.data import REFERENCE_YEAR, TARGET, YEAR, YEARS, employment
from modelops_training.training import HELD_OUT, SPLIT_SEED
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

Make = Callable[[Schema], Any]


class LightGbm:
    """The predictor of `modelops-train`."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def fit(self, matrix: Matrix, goal: NDArray[np.int64]) -> Self:
        """Train, as scikit-learn's models do."""
        target = goal.astype(np.float64)
        self._booster = predictor.fit(
            matrix, target, self._schema, seed=0, params={}, rounds=predictor.ROUNDS
        )
        return self

    def predict_proba(self, matrix: Matrix) -> NDArray[np.float64]:
        """Give the probabilities of both classes."""
        return predictor.answers(self._booster, matrix, self._schema.output)


def logistic_regression(schema: Schema) -> Any:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), categories(schema)), remainder=StandardScaler()
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1000))


def random_forest(_: Schema) -> Any:
    return RandomForestClassifier(random_state=0)


def histogram_boosting(schema: Schema) -> Any:
    return HistGradientBoostingClassifier(categorical_features=categories(schema), random_state=0)


def xgboost(_: Schema) -> Any:
    return import_module("xgboost").XGBClassifier(n_jobs=1, random_state=0)


def catboost(_: Schema) -> Any:
    return import_module("catboost").CatBoostClassifier(
        thread_count=1, random_seed=0, verbose=False, allow_writing_files=False
    )


PEERS: dict[str, Make] = {
    "LightGBM, ours": LightGbm,
    "logistic regression": logistic_regression,
    "random forest": random_forest,
    "histogram boosting": histogram_boosting,
    "XGBoost": xgboost,
    "CatBoost": catboost,
}


def categories(schema: Schema) -> list[int]:
    """Give the places of the categories, which the others take by their codes."""
    return [place for place, each in enumerate(schema.inputs) if each.kind == "category"]


def main() -> None:
    frame = employment([REFERENCE_YEAR]).drop(columns=YEAR)
    schema = inputs.describe(frame, TARGET)
    matrix, goal = inputs.encode(frame, schema), inputs.target_codes(frame, schema)
    kept, held = train_test_split(
        np.arange(len(goal)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=goal
    )
    began = time.process_time()
    model = PEERS[sys.argv[1]](schema).fit(matrix[kept], goal[kept])
    cpu = time.process_time() - began
    metrics = evaluation.classification(goal[held], model.predict_proba(matrix[held]))
    later = {}
    for year in YEARS:
        if year > REFERENCE_YEAR:
            rows = employment([year])
            found = model.predict_proba(inputs.encode(rows, schema))
            later[year] = evaluation.classification(inputs.target_codes(rows, schema), found)
    print(json.dumps({"cpu": cpu, "metrics": metrics, "evaluation": later}))


if __name__ == "__main__":
    main()
