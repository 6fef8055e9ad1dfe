"""`modelops-register`: a model and its rows from files."""

import json
import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
import pytest
from mlflow import MlflowClient
from modelops_training.register_command import main
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = [
    pytest.mark.contract,
    # MLflow compares the columns of an input example with a range, which pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


@pytest.fixture(scope="module")
def files(mixed: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A fitted model, and the rows that it was fitted on, with their dates."""
    folder = tmp_path_factory.mktemp("job")
    rows = mixed[["size", "whole"]]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, mixed["bought"])
    joblib.dump(model, folder / "model.joblib")
    when = pd.date_range("2026-01-01", periods=len(rows), freq="h")
    rows.assign(bought=mixed["bought"], when=when).to_parquet(folder / "rows.parquet")
    return str(folder / "model.joblib"), str(folder / "rows.parquet")


def test_a_job_registers_three_models_and_says_no_more(files: tuple[str, str], server: str) -> None:
    settings = [*("--target", "bought"), *("--name", "job"), *("--times", "when")]
    settings += ["--with-detectors"]
    command = [sys.executable, "-m", "modelops_training.register_command", *files, *settings]
    done = subprocess.run(
        [*command, "--tracking-uri", server], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in told[:3]] == [
        ["drift", "job_drift"],
        ["outlier", "job_outlier"],
        ["predictor", "job"],
    ]
    client = MlflowClient(server, server)
    found = client.get_model_version_by_alias("job", "candidate")
    assert ["version", str(found.version)] == told[2][2:]
    assert found.run_id
    inputs = client.get_run(found.run_id).inputs
    assert inputs is not None
    (data,) = inputs.dataset_inputs
    assert data.dataset.name == "rows.parquet"


def test_a_model_alone_as_json(
    files: tuple[str, str], server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*("--target", "bought"), *("--name", "lone"), *("--sensitive", "size")]
    settings += ["--alias", "champion"]
    assert main([*files, *settings, "--json", "--tracking-uri", server]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [version["name"] for version in told["versions"]] == ["lone"]
    assert told["alias"] == "champion"


def test_what_serving_will_cost_is_told_also_where_it_fails(
    files: tuple[str, str],
    mixed: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    path = tmp_path / "slow.joblib"
    joblib.dump(KNeighborsClassifier().fit(mixed[["size", "whole"]], mixed["bought"]), path)
    settings = ["--target", "bought", "--name", "x", "--tracking-uri", "http://127.0.0.1:9"]
    assert main([str(path), files[1], *settings]) == 1
    told = capsys.readouterr().err
    assert "registering 'x' at http://127.0.0.1:9" in told
    assert "modelops-register: warning: KNeighborsClassifier has no fast form" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "sold"}, "has no column 'sold'; it has ['size', 'whole', 'bought', 'when']"),
        ({"sensitive": "name"}, "has no column 'name'"),
        ({"model": "rows"}, "rows.parquet cannot be read as joblib or pickle"),
        ({"rows": "model"}, "model.joblib cannot be read as Parquet"),
        ({"rows": "nowhere"}, "nowhere cannot be read as Parquet"),
        ({"name": "a/b"}, "name of the predictor model, 'a/b'"),
    ],
)
def test_what_is_wrong_is_told_for_people(
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    paths = {"model": files[0], "rows": files[1], "nowhere": str(Path(files[0]).parent / "nowhere")}
    model = paths[change.get("model", "model")]
    rows = paths[change.get("rows", "rows")]
    settings = [*("--target", change.get("target", "bought")), *("--times", "when")]
    settings += ["--name", change.get("name", "x"), "--tracking-uri", "http://127.0.0.1:9"]
    settings += [*("--sensitive", change["sensitive"])] if "sensitive" in change else []
    assert main([model, rows, *settings]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("modelops-register: ")
    assert message in told.err
    assert not told.out


def test_help_needs_no_mlflow() -> None:
    program = """
import sys
from modelops_training import register_command
try:
    register_command.main(["--help"])
except SystemExit:
    assert not {"mlflow", "pandas", "sklearn"} & sys.modules.keys()
else:
    raise AssertionError("help ended not")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
