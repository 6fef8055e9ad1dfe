"""The stand-in for Databricks, against MLflow's own client of Unity Catalog."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from tests.databricks import VERSIONS, Failure, Workspace
from tests.registries.tokens import Certificate

pytestmark = pytest.mark.contract

NAME = "main.ml.employment"
LARGE = "modelops/a profile of 50%.bin"
CREDENTIALS = f"{VERSIONS}/generate-temporary-credentials"


@pytest.fixture(params=["presigned", "data lake"])
def workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    workspace = Workspace(Certificate(tmp_path) if request.param == "data lake" else None)
    # Reading files opens a tracking store too: a database in this folder, where none is named.
    settings = {"MLFLOW_TRACKING_URI": "databricks", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with workspace.serving() as environment:
        for name, value in (environment | settings).items():
            monkeypatch.setenv(name, value)
        yield workspace


@pytest.fixture
def client(workspace: Workspace) -> MlflowClient:
    client = MlflowClient("databricks", "databricks-uc")
    client.create_registered_model(NAME, {"team": "ml"}, "who has work")
    assert workspace.models[NAME].tags == {"team": "ml"}
    return client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with what Unity Catalog's client asks for."""
    folder = tmp_path_factory.mktemp("model")
    columns = Schema([ColSpec("double", "x")])
    Model(signature=ModelSignature(columns, columns)).save(folder / "MLmodel")
    for path, content in (("a/empty", b""), ("a/b/deep", b"1"), (LARGE, os.urandom(10_000))):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def download(address: str, to: Path) -> Path:
    found = mlflow.artifacts.download_artifacts(
        address, dst_path=str(to), registry_uri="databricks-uc"
    )
    return Path(found)


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(MlflowException) as caught:
        ask()
    return caught.value.error_code, caught.value.message


def test_a_version_is_registered_and_read(
    workspace: Workspace, client: MlflowClient, folder: Path, tmp_path: Path
) -> None:
    workspace.page = 1
    made = client.create_model_version(NAME, str(folder), tags={"train_id": "t1"})
    assert (made.version, made.status, made.tags) == ("1", "READY", {"train_id": "t1"})
    assert workspace.models[NAME].versions["1"].files == contents(folder)
    client.set_registered_model_alias(NAME, "candidate", "1")
    assert client.get_model_version_by_alias(NAME, "candidate").aliases == ["candidate"]
    assert client.get_registered_model(NAME).aliases == {"candidate": "1"}
    whole = download(f"models:/{NAME}@candidate", tmp_path / "whole")
    assert contents(whole).items() >= contents(folder).items()  # the client adds a note of its own
    part = download(f"models:/{NAME}/1/a", tmp_path / "part")
    assert contents(part) == {"empty": b"", "b/deep": b"1"}
    file = download(f"models:/{NAME}/1/{LARGE}", tmp_path / "file")
    assert file.read_bytes() == (folder / LARGE).read_bytes()


def test_a_version_changes_and_goes(client: MlflowClient, folder: Path) -> None:
    client.create_model_version(NAME, str(folder), tags={"train_id": "t1"})
    client.set_registered_model_alias(NAME, "candidate", "1")
    client.update_model_version(NAME, "1", "the first")
    client.set_model_version_tag(NAME, "1", "role", "predictor")
    client.delete_model_version_tag(NAME, "1", "train_id")
    found = client.get_model_version(NAME, "1")
    assert (found.description, found.tags) == ("the first", {"role": "predictor"})
    client.delete_model_version(NAME, "1")
    assert client.get_registered_model(NAME).aliases == {}
    assert client.create_model_version(NAME, str(folder)).version == "2"
    client.delete_registered_model(NAME)
    assert list(client.search_registered_models()) == []


def test_lists_are_paged_and_know_neither_aliases_nor_tags(
    workspace: Workspace, client: MlflowClient, folder: Path
) -> None:
    workspace.page = 1
    client.create_registered_model("main.ml.drift")
    for train_id in ("t1", "t2"):
        client.create_model_version(NAME, str(folder), tags={"train_id": train_id})
    client.set_registered_model_alias(NAME, "candidate", "1")
    first = client.search_registered_models(max_results=200)
    second = client.search_registered_models(max_results=200, page_token=first.token)
    assert [model.name for model in (*first, *second)] == ["main.ml.drift", NAME]
    assert second.token in {None, ""}
    page = client.search_model_versions(f"name='{NAME}'")
    assert [version.version for version in page] == ["1"]
    assert page.token
    answer = httpx.get(
        f"{workspace.host}{VERSIONS}/search",
        params={"filter": f"name = '{NAME}'"},
        headers={"Authorization": f"Bearer {workspace.token}"},
    )
    assert not {"tags", "aliases"} & answer.json()["model_versions"][0].keys()


@pytest.mark.parametrize("workspace", ["presigned"], indirect=True)
@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda client: client.create_registered_model(NAME), "RESOURCE_ALREADY_EXISTS"),
        (lambda client: client.create_registered_model("ml.two"), "all three levels"),
        (lambda client: client.get_registered_model("a.b.c"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda client: client.get_model_version(NAME, "1"), "RESOURCE_DOES_NOT_EXIST"),
        (
            lambda client: client.get_model_version_by_alias(NAME, "candidate"),
            "RESOURCE_DOES_NOT_EXIST",
        ),
        (
            lambda client: client.set_registered_model_alias(NAME, "candidate", "1"),
            "RESOURCE_DOES_NOT_EXIST",
        ),
        (
            lambda client: client.search_registered_models(max_results=201),
            "INVALID_PARAMETER_VALUE",
        ),
        (
            lambda client: client.search_model_versions(f"name='{NAME}' AND tags.a = 'b'"),
            "INVALID_PARAMETER_VALUE",
        ),
    ],
)
def test_what_the_real_one_refuses_is_refused(
    client: MlflowClient, ask: Callable[[MlflowClient], object], told: str
) -> None:
    assert told in ": ".join(refusal(lambda: ask(client)))


@pytest.mark.parametrize("workspace", ["presigned"], indirect=True)
@pytest.mark.parametrize(
    ("key", "value"),
    [(f"a{reserved}b", "") for reserved in ".,-=/:"]
    + [(" a", ""), ("a ", ""), ("a", " b"), ("k" * 256, ""), ("a", "v" * 1001)],
)
def test_tags_have_rules(client: MlflowClient, folder: Path, key: str, value: str) -> None:
    client.create_model_version(NAME, str(folder))
    tags = {key: value}
    for ask in (
        lambda: client.create_registered_model("main.ml.another", tags),
        lambda: client.set_registered_model_tag(NAME, key, value),
        lambda: client.create_model_version(NAME, str(folder), tags=tags),
        lambda: client.set_model_version_tag(NAME, "1", key, value),
    ):
        assert refusal(ask)[0] == "INVALID_PARAMETER_VALUE"
    assert client.get_registered_model(NAME).tags == {"team": "ml"}


@pytest.mark.parametrize("workspace", ["presigned"], indirect=True)
def test_a_reserved_character_is_told_as_by_the_real_one(client: MlflowClient) -> None:
    _, told = refusal(lambda: client.set_registered_model_tag(NAME, "mlflow.source.type", "JOB"))
    assert told.endswith(
        "Tag name mlflow.source.type contains one or more of the reserved characters: "
        "List(., ,, -, =, /, :)"
    )


@pytest.mark.parametrize("workspace", ["presigned"], indirect=True)
def test_an_object_has_fifty_tags(client: MlflowClient) -> None:
    for number in range(49):
        client.set_registered_model_tag(NAME, f"tag_{number}", "k" * 1000)
    code, _ = refusal(lambda: client.set_registered_model_tag(NAME, "one_more", ""))
    assert code == "INVALID_PARAMETER_VALUE"
    client.set_registered_model_tag(NAME, "team", "another")


def test_who_asks_is_known(
    workspace: Workspace, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = httpx.get(f"{workspace.host}{VERSIONS}/search")
    assert (nobody.status_code, nobody.json()["error_code"]) == (401, "UNAUTHENTICATED")
    monkeypatch.setenv("DATABRICKS_TOKEN", "another")
    assert refusal(lambda: client.get_registered_model(NAME))[0] == "PERMISSION_DENIED"


def test_a_failure_is_told_once(workspace: Workspace, client: MlflowClient) -> None:
    workspace.failures.append(Failure("/api/2.0/mlflow", 403, "PERMISSION_DENIED"))
    assert refusal(lambda: client.get_registered_model(NAME))[0] == "PERMISSION_DENIED"
    assert client.get_registered_model(NAME).name == NAME


def test_what_is_ready_is_read_and_what_is_pending_is_written(
    workspace: Workspace, client: MlflowClient, folder: Path, tmp_path: Path
) -> None:
    def post(to: str, **fields: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {workspace.token}"}
        return httpx.post(f"{workspace.host}{to}", json=fields, headers=headers)

    version = {"name": NAME, "version": "1"}
    read, write = "MODEL_VERSION_OPERATION_READ", "MODEL_VERSION_OPERATION_READ_WRITE"
    assert post(f"{VERSIONS}/create", name=NAME, source="x").json()["model_version"]["status"] == (
        "PENDING_REGISTRATION"
    )
    assert (
        refusal(lambda: download(f"models:/{NAME}/1", tmp_path / "pending"))[0] == "INVALID_STATE"
    )
    assert post(CREDENTIALS, **version, operation=write).status_code == 200
    client.create_model_version(NAME, str(folder))
    version = {"name": NAME, "version": "2"}
    assert post(CREDENTIALS, **version, operation=write).status_code == 400
    place = "Models/main/ml/employment/2/MLmodel"
    assert post("/api/2.0/fs/create-upload-url", path=f"/{place}").status_code == 400
    if workspace.certificate is None:
        address = post("/api/2.0/fs/create-download-url", path=f"/{place}").json()["url"]
        assert httpx.get(f"{address}x").status_code == 403
        assert httpx.put(address, content=b"").status_code == 403
    else:
        lent = post(CREDENTIALS, **version, operation=read).json()["credentials"]
        sas = lent["azure_user_delegation_sas"]["sas_token"]
        told = client.get_model_version_download_uri(NAME, "2")
        lake = told.replace("abfss://storage@", "https://").replace("/Models/", "/storage/Models/")
        address = f"{lake}/MLmodel?{sas}"
        trust = ssl.create_default_context(cafile=workspace.certificate.path)
        assert httpx.get(address, verify=trust).content == (folder / "MLmodel").read_bytes()
        assert httpx.get(f"{address}x", verify=trust).status_code == 403
        assert httpx.put(f"{address}&resource=file", verify=trust).status_code == 403
        another = address.replace("/2/", "/1/")
        assert httpx.get(another, verify=trust).status_code == 403


@pytest.mark.parametrize("workspace", ["data lake"], indirect=True)
def test_a_large_file_arrives_in_parts(
    workspace: Workspace, client: MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "3000")
    client.create_model_version(NAME, str(folder))
    assert workspace.models[NAME].versions["1"].files == contents(folder)
    assert sum(method == "PATCH" and LARGE in path for method, path in workspace.asked) == 5
