"""What `mlflow.pyfunc.load_model` loads: the model's own files, read without any pickle.

MLflow copies this program into each model and runs it there; its answers are for notebooks,
batches and `mlflow models serve`. The deployed runtime reads the same files without it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from modelops_runtime import detectors, flavor
from modelops_runtime.predictors import forms
from modelops_runtime.profile import Histogram, Profile, psi
from modelops_runtime.schema import Schema
from numpy.typing import NDArray

FILES = Path(__file__).parent / "modelops"


class Model(PythonModel):
    """Answers rows given as a data frame, by the role that the model has."""

    def load_context(self, context: PythonModelContext) -> None:  # noqa: ARG002  # MLflow's name
        """Read the files beside this program."""
        role = json.loads((FILES / "flavor.json").read_bytes())["role"]
        self.schema = Schema.from_json((FILES / "schema.json").read_bytes())
        self.answer: Predictor | Outlier | Drift = ROLES[role](self.schema)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow's name
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002  # MLflow's name
    ) -> pd.DataFrame:
        """Answer the rows of a frame; raises InvalidRows for values that the schema refuses."""
        cells = model_input.astype("object")
        rows = cells.where(cells.notna(), None).to_dict("records")
        return self.answer.frame(self.schema.encode(rows))


class Predictor:
    """Gives one row for each row: `prediction`, and `probability_<class>` of a classifier."""

    def __init__(self, schema: Schema) -> None:
        info = flavor.read(FILES.parent)
        self.predictor = forms(info)[0](info, schema.output)

    def frame(self, matrix: NDArray[np.float64]) -> pd.DataFrame:
        """Predict encoded rows."""
        answer = self.predictor.predict((), matrix)
        columns: dict[str, Any] = {"prediction": answer.predictions}
        if answer.probabilities is not None:
            columns |= zip((answer.columns or ())[1:], answer.probabilities.T, strict=True)
        return pd.DataFrame(columns)


class Outlier:
    """Gives one row for each row: its `score`, and `outlier`, whether that is too large."""

    def __init__(self, schema: Schema) -> None:  # noqa: ARG002  # the roles are built alike
        self.detector = detectors.read(flavor.read(FILES.parent))

    def frame(self, matrix: NDArray[np.float64]) -> pd.DataFrame:
        """Score encoded rows."""
        scores = self.detector.score(matrix)
        return pd.DataFrame({"score": scores, "outlier": scores > self.detector.threshold})


class Drift:
    """Gives one row for each feature: how far all rows together are from the reference.

    `psi` is the population stability index, sum of (live - reference) ln(live / reference) over
    the bins, those for missing and unseen values included; `missing` and `unseen` are shares.
    """

    def __init__(self, schema: Schema) -> None:  # noqa: ARG002  # the roles are built alike
        self.profile = Profile.from_json((FILES / "profile.json").read_bytes())

    def frame(self, matrix: NDArray[np.float64]) -> pd.DataFrame:
        """Compare encoded rows with the reference."""
        rows = max(len(matrix), 1)
        return pd.DataFrame(
            [
                {
                    "feature": feature.name,
                    "psi": psi(_all_bins(feature.histogram), _all_bins(live)),
                    "missing": live.missing / rows,
                    "unseen": live.unseen / rows,
                }
                for feature, live in zip(
                    self.profile.features, self.profile.count(matrix), strict=True
                )
            ]
        )


def _all_bins(histogram: Histogram) -> NDArray[np.int64]:
    return np.array([*histogram.counts, histogram.missing, histogram.unseen], dtype=np.int64)


ROLES: dict[str, Callable[[Schema], Predictor | Outlier | Drift]] = {
    "predictor": Predictor,
    "outlier": Outlier,
    "drift": Drift,
}

set_model(Model())
