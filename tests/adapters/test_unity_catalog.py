"""The model registry and the builder's fetching, against Unity Catalog."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from mlflow import MlflowClient
from modelops_operator.adapters.mlflow import MlflowRegistry, ModelRegistryError
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ImageModel
from modelops_operator.builder.models import fetch

from tests.builder.releases import write_release
from tests.databricks import Failure as Refused
from tests.databricks import Workspace
from tests.registries.tokens import Certificate

pytestmark = pytest.mark.contract

DATABRICKS = "databricks"
SHOP = "main.ml.shop"
T = TypeVar("T")


@pytest.fixture(scope="module", params=["presigned", "data lake"])
def workspace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """A workspace whose lists have one entry in each answer."""
    on_azure = request.param == "data lake"
    certificate = Certificate(tmp_path_factory.mktemp("lake")) if on_azure else None
    workspace = Workspace(certificate, page=1)
    with workspace.serving() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield workspace


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> MlflowClient:
    del workspace
    return MlflowClient(DATABRICKS, "databricks-uc")


@pytest.fixture(scope="module")
def shop(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two trainings of three models; the alias leads to the second, which was registered twice."""
    for number, training in enumerate(("t1", "t2", "t2")):
        folder = tmp_path_factory.mktemp("release")
        for role, place in write_release(folder, f"{number}").items():
            name = SHOP if role is Role.PREDICTOR else f"{SHOP}_{role}"
            if number == 0:
                client.create_registered_model(name)
            tags = {"modelops_train_id": training, "modelops_role": str(role)}
            made = client.create_model_version(name, str(place), tags=tags)
            client.set_registered_model_alias(name, "candidate", made.version)
    return SHOP


@pytest.fixture
def registry(workspace: Workspace) -> Iterator[MlflowRegistry]:
    del workspace
    registry = MlflowRegistry(DATABRICKS)
    yield registry
    registry.close()


def answer(ask: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await ask()

    return asyncio.run(main())


def refusal(ask: Callable[[], Awaitable[object]]) -> Failure:
    with pytest.raises(ModelRegistryError) as caught:
        answer(ask)
    return caught.value.failure


def test_a_walk_shows_nothing_in_one_request(
    workspace: Workspace, registry: MlflowRegistry, shop: str
) -> None:
    before = len(workspace.asked)
    assert shop not in answer(registry.walk)
    assert len(workspace.asked) == before + 1


def test_a_walk_fails_where_the_catalog_refuses(
    workspace: Workspace, registry: MlflowRegistry
) -> None:
    path = "/api/2.0/mlflow/unity-catalog/registered-models/search"
    workspace.failures.append(Refused(path, 403, "PERMISSION_DENIED"))
    assert refusal(registry.walk).reason is Reason.REGISTRY_DENIED


def test_one_model_is_read_by_name(registry: MlflowRegistry, shop: str) -> None:
    assert answer(lambda: registry.model(shop)) == {"candidate": "3"}


def test_a_version_tells_its_training(registry: MlflowRegistry, shop: str) -> None:
    trainings = [answer(partial(registry.version, shop, number)).train_id for number in "123"]
    assert trainings == ["t1", "t2", "t2"]


def test_the_newest_version_of_a_training_is_found(registry: MlflowRegistry, shop: str) -> None:
    name = f"{shop}_drift"
    assert answer(lambda: registry.of_training(name, "t2")) == "3"
    assert answer(lambda: registry.of_training(name, "t1")) == "1"
    assert answer(lambda: registry.of_training(name, "t0")) is None


def test_what_is_not_there_is_told(registry: MlflowRegistry, shop: str) -> None:
    nobody = refusal(lambda: registry.model("main.ml.nobody"))
    assert (nobody.reason, nobody.permanent) == (Reason.MODEL_NOT_FOUND, True)
    later = refusal(lambda: registry.version(shop, "9"))
    assert (later.reason, later.permanent) == (Reason.VERSION_NOT_FOUND, True)


def test_a_wrong_token_is_told(
    workspace: Workspace, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", f"not {workspace.token}")
    registry = MlflowRegistry(DATABRICKS)
    assert refusal(lambda: registry.model(shop)).reason is Reason.REGISTRY_DENIED
    registry.close()


def test_a_small_file_is_read(registry: MlflowRegistry, shop: str) -> None:
    read = answer(lambda: registry.read(f"{shop}_drift", "1", "modelops/profile.json"))
    assert read == b"{}0"


@pytest.mark.parametrize("role", Role)
def test_a_builder_fetches_what_is_registered(
    registry: MlflowRegistry, shop: str, tmp_path: Path, role: Role
) -> None:
    name = shop if role is Role.PREDICTOR else f"{shop}_{role}"
    version = answer(lambda: registry.version(name, "3"))
    wanted = ImageModel(
        role=role, name=name, version="3", run_id=version.run_id, source=version.source
    )
    fetched = answer(lambda: fetch(wanted, DATABRICKS, tmp_path))
    assert fetched.fast
    assert fetched.files()["modelops/schema.json"].read_bytes() == b"{}2"
    assert "unwanted.txt" not in fetched.files()
