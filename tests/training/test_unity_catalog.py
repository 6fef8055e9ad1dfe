"""Registering in Unity Catalog: what differs there from MLflow's own registry."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from modelops_training import (
    AliasError,
    Registration,
    RegistrationError,
    Trained,
    naming,
    register,
    repair,
)
from modelops_training.mover import INTENT, Move
from modelops_training.signature import example
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from tests.databricks import Failure, Workspace
from tests.registries.tokens import Certificate
from tests.training.desk import PATIENCE, serve

pytestmark = [
    pytest.mark.contract,
    # MLflow compares the columns of an input example with a range, which pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

CATALOG = "databricks-uc"
NAMES = ("main.ml.shop_drift", "main.ml.shop_outlier", "main.ml.shop")
REGISTERED_MODELS = "/api/2.0/mlflow/unity-catalog/registered-models"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace on Azure, which models are registered in; runs go to the usual server."""
    workspace = Workspace(Certificate(tmp_path_factory.mktemp("lake")))
    with workspace.serving() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "MLFLOW_REGISTRY_URI": CATALOG}.items():
            patch.setenv(name, value)
        yield workspace


@pytest.fixture(scope="module")
def client(workspace: Workspace, server: str) -> MlflowClient:
    del workspace
    return MlflowClient(server, CATALOG)


@pytest.fixture(scope="module")
def shop(workspace: Workspace, small: Trained, server: str) -> Registration:
    """The small models, registered in the catalog."""
    del workspace
    return register(small, NAMES[-1], tracking_uri=server)


def holders(client: MlflowClient) -> tuple[str | None, ...]:
    """The versions that the alias leads to, in the order of NAMES."""
    return tuple(client.get_registered_model(name).aliases.get("candidate") for name in NAMES)


def test_the_alias_leads_to_three_versions_of_one_training(
    shop: Registration, client: MlflowClient, small: Trained
) -> None:
    assert tuple(version.name for version in shop.versions) == NAMES
    for version in shop.versions:
        found = client.get_model_version_by_alias(version.name, "candidate")
        assert (str(found.version), found.status) == (version.version, "READY")
        assert found.run_id == shop.run_id
        assert found.tags == {"modelops_train_id": small.train_id, "modelops_role": version.role}
    assert INTENT not in client.get_registered_model(NAMES[-1]).tags


@pytest.mark.usefixtures("pointed")
def test_each_model_loads_by_its_alias(shop: Registration, small: Trained) -> None:
    rows = small.frame.head(100)
    given = example(small)
    for version in shop.versions:
        model = mlflow.pyfunc.load_model(f"models:/{version.name}@candidate")
        assert len(model.predict(given))
        if version.role == "predictor":
            answers = model.predict(
                rows[list(small.schema.names)].astype(dict(given.dtypes.items()))
            )
            np.testing.assert_allclose(
                answers["probability_1"], small.answers(rows)[:, 1], atol=1e-6
            )


def test_it_is_served_at_a_desk(shop: Registration, small: Trained, tmp_path: Path) -> None:
    process, url = serve(f"{NAMES[-1]}@candidate", "databricks", tmp_path / "log")
    try:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            rows = example(small).to_json(orient="records")
            answer = client.post("/predict", content=rows)
            served = client.get("/metadata").json()["models"]
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert answer.status_code == 200, answer.text
    assert served == {each.role: f"{each.name}/{each.version}" for each in shop.versions}


def test_a_move_that_cannot_be_noted_moves_nothing(
    shop: Registration, workspace: Workspace, client: MlflowClient, small: Trained, server: str
) -> None:
    before = holders(client)
    assert None not in before
    workspace.failures.append(Failure(f"{REGISTERED_MODELS}/set-tag", 403, "PERMISSION_DENIED"))
    with pytest.raises(AliasError, match=r"could not be noted: .*No alias 'candidate' has moved"):
        register(small, shop.versions[-1].name, tracking_uri=server)
    assert holders(client) == before


def test_a_move_that_was_cut_short_is_finished(
    shop: Registration, client: MlflowClient, small: Trained, server: str
) -> None:
    made = register(small, shop.versions[-1].name, alias=None, tracking_uri=server)
    wanted = tuple((version.name, version.version) for version in made.versions)
    move = Move(alias="candidate", versions=wanted, tracking_uri=server, registry_uri=CATALOG)
    client.set_registered_model_tag(move.keeper, INTENT, move.note)
    client.set_registered_model_alias(wanted[0][0], "candidate", wanted[0][1])
    assert repair(move.keeper, tracking_uri=server) == move
    assert holders(client) == tuple(version for _, version in wanted)
    assert INTENT not in client.get_registered_model(move.keeper).tags
    assert repair(move.keeper, tracking_uri=server) is None


@pytest.mark.usefixtures("workspace")
def test_nothing_to_repair(server: str) -> None:
    assert repair("main.ml.never_registered", tracking_uri=server) is None


@pytest.mark.filterwarnings("ignore::modelops_training.TrainingWarning")
@pytest.mark.parametrize("model", [LogisticRegression(), KNeighborsClassifier()])
def test_a_model_of_ones_own_alone(
    model: Any, client: MlflowClient, mixed: pd.DataFrame, server: str
) -> None:
    rows = mixed[["size", "whole"]]
    name = f"main.ml.{type(model).__name__}"
    model.fit(rows, mixed["bought"])
    register(model, rows, mixed["bought"], name, tracking_uri=server)
    assert client.get_model_version_by_alias(name, "candidate").tags["modelops_role"] == "predictor"


def test_experiments_of_databricks_are_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "databricks")
    names = {"predictor": "main.ml.shop"}
    naming.check(names, "candidate", None)
    naming.check(names, "candidate", "/Shared/shop")
    with pytest.raises(RegistrationError, match=r"'shop': on Databricks .* such as /Shared/shop"):
        naming.check(names, "candidate", "shop")
