"""What Evidently or NannyML say by their defaults: run in an environment that has one of them.

    python drift.py evidently|nannyml windows.npz

The file has `reference` of shape (rows, features) and `windows` of shape (windows, rows, features).
Prints, as JSON, in how many windows a feature drifts, and in how many the data as a whole does.
"""

import json
import sys
import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd


def evidently(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> tuple[int, int]:
    """Evidently's DataDriftPreset, which chooses a test for each column by the number of rows."""
    library, presets = import_module("evidently"), import_module("evidently.presets")
    features, whole = 0, 0
    for window in windows:
        metrics = library.Report([presets.DataDriftPreset()]).run(window, reference).dict()
        count = metrics["metrics"][0]["value"]
        features += count["count"] > 0
        whole += count["share"] >= 0.5
    return features, whole


def nannyml(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> tuple[int, int]:
    """NannyML's univariate drift, by Jensen and Shannon; a chunk is as large as a window."""
    calculator = import_module("nannyml").UnivariateDriftCalculator(
        column_names=list(reference.columns), chunk_size=len(windows[0])
    )
    found = calculator.fit(reference).calculate(pd.concat(windows, ignore_index=True))
    table: Any = found.filter(period="analysis").to_df()
    alerts = table.loc[:, [column for column in table.columns if column[-1] == "alert"]]
    return int(alerts.any(axis=1).sum()), int((alerts.mean(axis=1) >= 0.5).sum())


def main() -> None:
    warnings.simplefilter("ignore")
    peer, path = sys.argv[1:]
    data = np.load(path)
    names = [f"x{index}" for index in range(data["reference"].shape[1])]
    tables = [pd.DataFrame(rows, columns=names) for rows in data["windows"]]
    judge = {"evidently": evidently, "nannyml": nannyml}[peer]
    features, whole = judge(pd.DataFrame(data["reference"], columns=names), tables)
    print(json.dumps({"features": features, "whole": whole}))


if __name__ == "__main__":
    main()
