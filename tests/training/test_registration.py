"""Registering in a real MLflow: what is logged, what the registry holds, where aliases lead."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from modelops_runtime import flavor as runtime
from modelops_training import (
    AliasError,
    Registration,
    RegistrationError,
    Trained,
    card,
    register,
    repair,
)
from modelops_training.__main__ import main
from modelops_training.data import FEATURES, employment
from modelops_training.mover import INTENT

pytestmark = [
    pytest.mark.contract,
    # MLflow compares the columns of an input example with a range, which pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
    # MLflow's own database queries, where it works without a server.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

NAMES = ("employment_drift", "employment_outlier", "employment")


@pytest.fixture(scope="module")
def client(server: str) -> MlflowClient:
    return MlflowClient(server, server)


def test_the_alias_leads_to_three_versions_of_one_training(
    registered: Registration, client: MlflowClient
) -> None:
    assert tuple(version.name for version in registered.versions) == NAMES
    for version in registered.versions:
        found = client.get_model_version_by_alias(version.name, "candidate")
        assert (str(found.version), found.run_id) == (version.version, registered.run_id)
        assert found.tags == {
            "modelops_train_id": registered.train_id,
            "modelops_role": version.role,
        }
    assert INTENT not in client.get_registered_model("employment").tags


def test_the_run_tells_everything(
    registered: Registration, trained: Trained, client: MlflowClient
) -> None:
    run = client.get_run(registered.run_id)
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "employment"
    assert run.data.metrics["held_out_auc"] == pytest.approx(trained.metrics["auc"])
    assert run.data.params["rows"] == "68785"
    assert run.data.tags["modelops_data_sha256"] == trained.data_digest
    assert run.inputs is not None
    (data,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    assert (data.name, data.digest) == ("employment", trained.data_digest[:36])
    assert json.loads(data.profile or "") == {"num_rows": 68785}
    assert len(json.loads(data.schema or "")["mlflow_colspec"]) == len(FEATURES) + 1
    assert run.data.metrics["held_out_outlier_recall_6_sigma"] >= 0.6
    assert run.data.metrics["held_out_outlier_recall_x1000"] >= 0.99
    assert set(card.FILES) <= {each.path for each in client.list_artifacts(registered.run_id)}
    for metric in ("auc", "log_loss", "calibration_error", "outlier_rate"):
        history = client.get_metric_history(registered.run_id, f"later_{metric}")
        assert [point.step for point in history] == [2016, 2017, 2018]
    predictor = client.get_logged_model(registered.versions[-1].model_id)
    assert {"held_out_auc", "later_auc"} <= {metric.key for metric in predictor.metrics or ()}


@pytest.mark.usefixtures("pointed")
def test_each_model_loads_by_its_alias(registered: Registration, trained: Trained) -> None:
    rows = employment([2017]).head(200)[list(FEATURES)]
    models = {
        version.role: mlflow.pyfunc.load_model(f"models:/{version.name}@candidate")
        for version in registered.versions
    }
    predicted = models["predictor"].predict(rows)
    np.testing.assert_allclose(predicted["probability_1"], trained.answers(rows)[:, 1], atol=1e-6)
    assert models["outlier"].predict(rows).shape == (200, 2)
    assert models["drift"].predict(rows).shape == (16, 4)
    assert models["predictor"].metadata.signature is not None
    assert list(models["predictor"].input_example.columns) == list(FEATURES)


@pytest.mark.usefixtures("pointed")
def test_what_is_downloaded_is_what_was_trained(
    registered: Registration, trained: Trained, tmp_path: Path
) -> None:
    for version in registered.versions:
        uri = f"models:/{version.name}/{version.version}"
        path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / version.role)))
        info = runtime.read(path)
        runtime.verify(info)
        assert {name: info.load(name) for name in info.files} == trained.files[version.role]


SPARE = {"drift": "spare_profile"}


@pytest.fixture(scope="module")
def spare(small: Trained, server: str) -> Registration:
    """Another training, with an alias and names of its own."""
    return register(small, "spare", alias="champion", names=SPARE, tracking_uri=server)


def test_another_alias_and_names(spare: Registration, client: MlflowClient) -> None:
    names = [version.name for version in spare.versions]
    assert names == ["spare_profile", "spare_outlier", "spare"]
    assert all(
        client.get_registered_model(each).aliases == {"champion": version.version}
        for each, version in zip(names, spare.versions, strict=True)
    )


def test_a_users_own_run_stays_theirs_and_no_alias_means_none(
    spare: Registration, small: Trained, server: str, client: MlflowClient
) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        with mlflow.start_run(experiment_id="0") as mine:
            made = register(small, "spare", alias=None, names=SPARE)
            active = mlflow.active_run()
            assert active is not None
            assert active.info.run_id == mine.info.run_id
    finally:
        mlflow.set_tracking_uri(before)
    assert client.get_run(made.run_id).data.tags["mlflow.parentRunId"] == mine.info.run_id
    assert made.alias is None
    former = spare.versions[-1].version
    assert made.versions[-1].version != former
    assert client.get_registered_model("spare").aliases == {"champion": former}


def test_a_local_database_works_without_any_server(small: Trained, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    before = mlflow.get_tracking_uri()
    made = register(small, "local", tracking_uri=uri)
    assert mlflow.get_tracking_uri() == before
    client = MlflowClient(uri, uri)
    for version in made.versions:
        found = client.get_model_version_by_alias(version.name, "candidate")
        assert str(found.version) == version.version


def test_a_server_that_is_not_there_is_named(
    small: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistrationError, match=r"registering 'x' at http://127\.0\.0\.1:9: .*"):
        register(small, "x", tracking_uri="http://127.0.0.1:9")


def test_a_note_that_is_none_is_refused_for_people(server: str, client: MlflowClient) -> None:
    client.create_registered_model("noted", tags={INTENT: "{}"})
    with pytest.raises(AliasError, match=r"its tag 'modelops_moving' is '{}', not the note of"):
        repair("noted", tracking_uri=server)


def test_nothing_to_repair(server: str) -> None:
    assert repair("never registered", tracking_uri=server) is None


def test_the_command_prints_a_table(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tracking-uri", server, "--name", "told", "--seed", "1"]) == 0
    said = capsys.readouterr()
    assert not said.err  # nor does MLflow say anything
    lines = said.out.splitlines()
    assert lines[0].split()[:3] == ["data", "auc", "log_loss"]
    assert [line.split()[0] for line in lines[1:5]] == ["2015", "2016", "2017", "2018"]
    assert "predictor   told" in "\n".join(lines)
    assert main(["--tracking-uri", server, "--name", "told", "--repair"]) == 0
    assert capsys.readouterr().out == "told: no alias move was cut short\n"


def test_the_command_prints_json_and_needs_no_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["--no-register", "--years", "2016,2017", "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(said["evaluation"]) == {"2018"}
    assert said["registration"] is None
    assert said["metrics"]["auc"] > 0.9


def test_the_command_refuses_a_year_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--years", "2014"])
    assert "no data for [2014]" in capsys.readouterr().err


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelops_training", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--tracking-uri" in done.stdout
