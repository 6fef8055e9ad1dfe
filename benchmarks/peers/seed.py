"""The way of the system that came before: detectors and a log line with everything per request.

Drift as alibi-detect's KSDrift finds it, a Kolmogorov-Smirnov test of each feature against the
reference rows, and outliers by an isolation forest, all on the request's path.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import joblib
import pandas as pd
from mlflow import pyfunc
from scipy.stats import ks_2samp


@bentoml.service
class Seed:
    """Predicts records, and judges them."""

    def __init__(self) -> None:
        folder = Path(os.environ["ARTIFACTS"])
        self.model = pyfunc.load_model(str(folder / "model"))
        self.encoder = joblib.load(folder / "pipeline.joblib")[0]
        self.forest = joblib.load(folder / "isolation.joblib")
        self.reference = joblib.load(folder / "reference.joblib")

    @bentoml.api  # type: ignore[untyped-decorator] # BentoML has no types
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict."""
        frame = pd.DataFrame(records)
        predictions = self.model.predict(frame).tolist()
        rows = self.encoder.transform(frame)
        p_values = [
            float(ks_2samp(self.reference[:, place], rows[:, place]).pvalue)
            for place in range(rows.shape[1])
        ]
        judged = {
            "predictions": predictions,
            "outliers": (self.forest.predict(rows) < 0).tolist(),
            "drift": min(p_values) < 0.05 / len(p_values),
        }
        line = {"inputs": records, "p_values": p_values, **judged}
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()
        return judged
