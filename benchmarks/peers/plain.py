"""A BentoML service around the pyfunc, with BentoML's defaults."""

import os
from typing import Any

import bentoml
import pandas as pd
from mlflow import pyfunc


@bentoml.service
class Plain:
    """Predicts records."""

    def __init__(self) -> None:
        self.model = pyfunc.load_model(f"{os.environ['ARTIFACTS']}/model")

    @bentoml.api  # type: ignore[untyped-decorator] # BentoML has no types
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict."""
        return {"predictions": self.model.predict(pd.DataFrame(records)).tolist()}
