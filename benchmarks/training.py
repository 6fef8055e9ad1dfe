"""CPU and quality of `modelops-train` on the data that come along, registering included.

Each round is a process of its own that registers at a real MLflow server. Peer: the least that
training and logging the same predictor takes, LightGBM's `train` and `mlflow.lightgbm.log_model`.
Then jobs that take a fitted pipeline and its rows from files and register it, alone and with
detectors: `modelops-register`, and a program of one's own that calls `modelops_training.register`.
Beside them one that logs the same number of models with MLflow's `log_model`, which infers the
requirements. Model card, reference profile, proof and aliases are ours alone. Jobs have one core.
Last a table of the predictor beside others: see training_peers.py.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelops_training.data import TARGET
from uv import find_uv_bin

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import CLIENT_CORE
from benchmarks.reporting import at_least, conclude, goal
from benchmarks.training_peers import PEERS
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
FIT = """
import sys, lightgbm, joblib
from modelops_training.data import CATEGORIES, FEATURES, REFERENCE_YEAR, TARGET, employment
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
frame = employment([REFERENCE_YEAR])[[*FEATURES, TARGET]]
frame.to_parquet(sys.argv[2])
X, y = frame[list(FEATURES)], frame[TARGET]
codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
columns = make_column_transformer((codes, list(CATEGORIES)), remainder="passthrough")
model = make_pipeline(columns, lightgbm.LGBMClassifier(verbose=-1, n_jobs=1, random_state=0))
joblib.dump(model.fit(X, y), sys.argv[1])
"""
FITTED = f"""
import sys, joblib, warnings
import pandas as pd
warnings.simplefilter("ignore")
frame = pd.read_parquet(sys.argv[3])
X, y = frame.drop(columns="{TARGET}"), frame["{TARGET}"]
model = joblib.load(sys.argv[2])
"""
LOGGED = f"""{FITTED}
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run():
    mlflow.sklearn.log_model(
        model, name="model", input_example=X.head(3), registered_model_name="logged",
        serialization_format="cloudpickle",
    )
"""
LOGGED_THREE = f"""{LOGGED}
from sklearn.ensemble import IsolationForest
rows = model[0].transform(X)
class Drift(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[float], params=None):
        return abs(model_input - self.usual).max()
drift = Drift()
drift.usual = rows.mean(axis=0)
with mlflow.start_run():
    mlflow.sklearn.log_model(
        IsolationForest(random_state=0, n_jobs=1).fit(rows), name="outlier",
        input_example=rows[:3], registered_model_name="logged_outlier",
        serialization_format="cloudpickle",
    )
    mlflow.pyfunc.log_model(
        python_model=drift, name="drift", input_example=list(rows[0]),
        registered_model_name="logged_drift",
    )
"""
REGISTERED = f"""{FITTED}
from modelops_training import register
register(model, X, y, "adopted", tracking_uri=sys.argv[1], with_detectors=True)
"""
REGISTERED_ALONE = f"""{FITTED}
from modelops_training import register
register(model, X, y, "alone", tracking_uri=sys.argv[1])
"""
Job = Callable[[str, str, str], Sequence[str]]
"""Tells Python's arguments: of the address of the server, and the files of model and rows."""


def program(text: str) -> Job:
    return lambda uri, model, rows: ("-c", text, uri, model, rows)


def command(name: str, *settings: str) -> Job:
    return lambda uri, model, rows: (
        *("-m", "modelops_training.register_command", model, rows, "--target", TARGET),
        *("--name", name, "--tracking-uri", uri, *settings),
    )


JOBS: dict[str, Job] = {
    "modelops-register, three": command("ordered", "--with-detectors"),
    "register of three": program(REGISTERED),
    "log_model of three": program(LOGGED_THREE),
    "modelops-register, one": command("ordered_alone"),
    "register of one": program(REGISTERED_ALONE),
    "log_model of one": program(LOGGED),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ours, plain, answer = [], [], ""
    jobs: dict[str, list[float]] = {name: [] for name in JOBS}
    with tempfile.TemporaryDirectory() as folder, running_mlflow(Path(folder)) as uri:
        files = [str(Path(folder, name)) for name in ("model.joblib", "rows.parquet")]
        cpu("-c", FIT, *files)
        for number in range(options.rounds):
            seconds, answer = cpu("-m", "modelops_training", "--tracking-uri", uri, "--json")
            ours.append(seconds)
            plain.append(cpu("-c", PLAIN, uri)[0])
            print(
                f"round {number}  modelops-train {ours[-1]:5.1f} s of CPU  plain {plain[-1]:5.1f} s"
            )
            for name, job in JOBS.items():
                jobs[name].append(wall(*job(uri, *files)))
                print(f"         {name:25} {jobs[name][-1]:5.1f} s", flush=True)
    metrics = json.loads(answer)["metrics"]
    for name in PEERS:
        show(name, peer(name))
    seconds = statistics.median(ours)
    print(f"median {seconds:.1f} s of CPU, {seconds / statistics.median(plain):.2f} of plain")
    ways = ("modelops-register,", "register of")
    conclude(
        "training",
        [
            goal("seconds of CPU, registering included", seconds, 20.0),
            *(
                at_least(
                    f"{way} {count}, times faster than log_model of {count}",
                    faster(jobs, f"{way} {count}", f"log_model of {count}"),
                    1.7,
                )
                for way in ways
                for count in ("three", "one")
            ),
            at_least("AUC", metrics["auc"], 0.905),
            goal("log loss", metrics["log_loss"], 0.376),
            goal("calibration error", metrics["calibration_error"], 0.015),
            at_least("recall of 6 sigma", metrics["outlier_recall_6_sigma"], 0.6),
            at_least("recall of unit errors of 1000", metrics["outlier_recall_x1000"], 0.99),
            at_least("false alarms, at least", metrics["outlier_rate"], 0.003),
            goal("false alarms, at most", metrics["outlier_rate"], 0.008),
        ],
        {
            f"{way} three, times faster than log_model of one": faster(
                jobs, f"{way} three", "log_model of one"
            )
            for way in ways
        },
    )


def peer(name: str) -> dict[str, Any]:
    """Train a predictor in an environment that has the libraries."""
    program = str(Path(__file__).with_name("training_peers.py"))
    outcome = subprocess.run(
        [
            *(find_uv_bin(), "run", "--frozen", "--no-sync", "--quiet"),
            *("--with", "xgboost", "--with", "catboost", "python", program, name),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    )
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print a line of the table."""
    held, later = found["metrics"], found["evaluation"]
    line = "  ".join(
        f"{year} {one['auc']:.4f} {one['log_loss']:.4f}" for year, one in later.items()
    )
    print(
        f"{name:20} {found['cpu']:6.1f} s of CPU  AUC {held['auc']:.4f}  "
        f"log loss {held['log_loss']:.4f}  calibration {held['calibration_error']:.4f}  {line}",
        flush=True,
    )


def faster(seconds: Mapping[str, Sequence[float]], ours: str, peer: str) -> float:
    """Compare two jobs: the median over the rounds, as a machine changes its speed."""
    pairs = zip(seconds[peer], seconds[ours], strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)


def wall(*arguments: str) -> float:
    """Run Python as a job of its own; give its seconds."""
    began = time.monotonic()
    # In a folder with a lock of uv's MLflow would read that, and infer nothing.
    with tempfile.TemporaryDirectory() as empty:
        cpu(*arguments, cwd=empty)
    return time.monotonic() - began


def cpu(*arguments: str, cwd: str | None = None) -> tuple[float, str]:
    """Run a program on one core; give its seconds of CPU, with its children's, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    outcome = subprocess.run(
        ["taskset", "--cpu-list", CLIENT_CORE, sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env=environment,
        cwd=cwd,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, outcome.stdout


if __name__ == "__main__":
    main()
