"""CPU and quality of `modelops-train` on the data that come along, registering included.

Each round is a process of its own that registers at a real MLflow server. Peer: the least that
training and logging the same predictor takes, LightGBM's `train` and `mlflow.lightgbm.log_model`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reporting import at_least, conclude, goal
from tests.mlflow_server import running_mlflow

PLAIN = """
import sys, lightgbm, mlflow
from modelops_training.data import FEATURES, REFERENCE_YEAR, TARGET, employment
mlflow.set_tracking_uri(sys.argv[1])
frame = employment([REFERENCE_YEAR])
data = lightgbm.Dataset(frame[list(FEATURES)].astype(float), frame[TARGET])
booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 100)
with mlflow.start_run():
    mlflow.lightgbm.log_model(booster, name="model", registered_model_name="plain")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ours, plain, answer = [], [], ""
    with tempfile.TemporaryDirectory() as folder, running_mlflow(Path(folder)) as uri:
        for number in range(options.rounds):
            seconds, answer = cpu("-m", "modelops_training", "--tracking-uri", uri, "--json")
            ours.append(seconds)
            plain.append(cpu("-c", PLAIN, uri)[0])
            print(
                f"round {number}  modelops-train {ours[-1]:5.1f} s of CPU  plain {plain[-1]:5.1f} s"
            )
    metrics = json.loads(answer)["metrics"]
    seconds = statistics.median(ours)
    print(f"median {seconds:.1f} s of CPU, {seconds / statistics.median(plain):.2f} of plain")
    conclude(
        "training",
        [
            goal("seconds of CPU, registering included", seconds, 20.0),
            at_least("AUC", metrics["auc"], 0.905),
            goal("log loss", metrics["log_loss"], 0.376),
            goal("calibration error", metrics["calibration_error"], 0.015),
        ],
    )


def cpu(*arguments: str) -> tuple[float, str]:
    """Run a program; give its seconds of CPU, with those of its children, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    outcome = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env=environment,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, outcome.stdout


if __name__ == "__main__":
    main()
