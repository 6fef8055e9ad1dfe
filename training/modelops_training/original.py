"""A user's own fitted model, asked as its library asks it."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from modelops_runtime.schema import Label
from numpy.typing import NDArray
from sklearn.base import is_classifier

from modelops_training.errors import DataError

_TIMED = 5


@dataclass(frozen=True, eq=False)
class Original:
    """The model and what it says of itself."""

    model: Any

    @property
    def library(self) -> str:
        """Name of the package that it comes from: sklearn, lightgbm, xgboost, catboost, ..."""
        return type(self.model).__module__.partition(".")[0]

    @property
    def title(self) -> str:
        """Its class; of a pipeline also its last step's."""
        last = self.last
        name = type(self.model).__name__
        return name if last is self.model else f"{name} with {type(last).__name__}"

    @property
    def last(self) -> Any:
        """The estimator itself, behind the steps of a pipeline."""
        return self.model.steps[-1][1] if hasattr(self.model, "steps") else self.model

    @property
    def is_booster(self) -> bool:
        """Whether it is LightGBM's or XGBoost's bare Booster, without classes."""
        return self.library in {"lightgbm", "xgboost"} and type(self.model).__name__ == "Booster"

    @property
    def takes_known_only(self) -> bool:
        """Whether categories have to be known: XGBoost mistakes some that are not for others."""
        return self.library == "xgboost"

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """The columns it was fitted on, in order; None where it does not say."""
        if self.is_booster:
            attribute = "feature_name" if self.library == "lightgbm" else "feature_names"
            found = getattr(self.model, attribute)
            found = found() if callable(found) else found
        else:
            found = getattr(self.model, "feature_names_in_", None)
            if found is None and self.library == "catboost":
                found = self.model.feature_names_
        return None if found is None or not len(found) else tuple(str(each) for each in found)

    @cached_property
    def classes(self) -> tuple[Label, ...] | None:
        """The labels in the order of its probabilities; None if it gives none."""
        if self.is_booster:
            count = _booster_classes(self.model, self.library)
            return tuple(range(count)) if count else None
        if not hasattr(self.model, "predict_proba"):
            return None
        found = getattr(self.model, "classes_", None)
        if found is None or not len(found) or not _one_dimensional(found):
            return None
        return tuple(each.item() if isinstance(each, np.generic) else each for each in found)

    @property
    def classifies(self) -> bool:
        """Whether its answers are labels, with or without probabilities."""
        return self.classes is not None or (
            self.library in {"sklearn", "imblearn"} and is_classifier(self.model)
        )

    def answers(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Predict: probabilities (n, classes), or values (n,); labels of what gives no more."""
        if self.is_booster:
            raw = self._booster_answers(frame)
            binary = self.classes is not None and raw.ndim == 1
            return np.column_stack([1.0 - raw, raw]) if binary else raw
        if self.classes is not None:
            return np.asarray(self.model.predict_proba(self.given(frame)), dtype=np.float64)
        found = np.asarray(self.model.predict(self.given(frame)))
        return found.reshape(len(frame), -1)[:, 0] if found.size == len(frame) else found

    def labels(self, frame: pd.DataFrame) -> list[Label]:
        """Predict classes, as the model itself decides on them."""
        if self.is_booster:
            return [int(each) for each in self.answers(frame).argmax(axis=1)]
        found = np.asarray(self.model.predict(self.given(frame))).reshape(-1)
        labels: list[Label] = found.tolist()
        return labels

    def cost(self, frame: pd.DataFrame) -> float:
        """Measure how long the model takes for one row: milliseconds of CPU."""
        times = []
        for _ in range(_TIMED):
            started = time.process_time()
            self.answers(frame.head(1))
            times.append(time.process_time() - started)
        return min(times) * 1000

    def given(self, frame: pd.DataFrame) -> Any:
        """Give the rows as it was fitted: scikit-learn warns of names that it has never met."""
        nameless = self.library == "sklearn" and self.names is None
        return frame.to_numpy() if nameless else frame

    def _booster_answers(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        if self.library == "lightgbm":
            return np.asarray(self.model.predict(frame, num_threads=1), dtype=np.float64)
        import xgboost  # noqa: PLC0415  # an extra

        data = xgboost.DMatrix(frame, enable_categorical=True)
        return np.asarray(self.model.predict(data), dtype=np.float64)


def _booster_classes(booster: Any, library: str) -> int:
    """Count the classes that a Booster tells apart; 0 for values."""
    if library == "lightgbm":
        described = booster.dump_model(num_iteration=1)
        objective, outputs = described.get("objective", ""), described["num_class"]
        if objective.startswith(("binary", "cross_entropy")):
            return 2
        return int(outputs) if objective.startswith("multiclass") else 0
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    if objective.startswith("binary:"):
        return 2
    if objective.startswith("multi:"):
        return int(learner["learner_model_param"]["num_class"])
    return 0


def _one_dimensional(classes: Sequence[Any]) -> bool:
    return np.ndim(classes[0]) == 0


def found(model: Any) -> Any:
    """Give the estimator that a search (GridSearchCV, say) found and fitted; others as they are."""
    return getattr(model, "best_estimator_", model)


def as_frame(rows: Any) -> pd.DataFrame:
    """Take a frame as it is, and give names to the columns of an array. Raises DataError."""
    if isinstance(rows, pd.DataFrame):
        return rows
    values = np.asarray(rows)
    if values.ndim != 2:
        raise DataError(f"X has shape {values.shape}; give a frame, or an array of rows")
    return pd.DataFrame(values, columns=[f"x{place}" for place in range(values.shape[1])])
