"""The model registry, against a real MLflow server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mlflow import MlflowClient
from modelops_operator.adapters.mlflow import MlflowRegistry, ModelRegistryError, python_of
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason

from tests.mlflow_server import free_port

pytestmark = pytest.mark.contract

T = TypeVar("T")


@pytest.fixture(scope="module")
def client(tracking_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri, tracking_uri)


@pytest.fixture
def registry(tracking_uri: str) -> Iterator[MlflowRegistry]:
    registry = MlflowRegistry(tracking_uri)
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def two_versions(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with two versions, the first of which has files, and the alias `candidate`."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "modelops").mkdir()
    (folder / "modelops" / "profile.json").write_bytes(b'{"rows": 1}')
    (folder / "MLmodel").write_text("flavors: {python_function: {python_version: 3.12.4}}")
    run = client.create_run(client.create_experiment("adapters"))
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_registered_model("two-versions")
    client.create_model_version(
        "two-versions",
        f"{run.info.artifact_uri}/model",
        run.info.run_id,
        tags={"modelops.train_id": "t1"},
    )
    client.create_model_version("two-versions", "s3://nowhere/model")
    client.set_registered_model_alias("two-versions", "candidate", "1")
    return "two-versions"


def answer(ask: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await ask()

    return asyncio.run(main())


def failure(ask: Callable[[], Awaitable[Any]]) -> Failure:
    with pytest.raises(ModelRegistryError) as caught:
        answer(ask)
    return caught.value.failure


def test_a_walk_brings_all_aliases(
    client: MlflowClient, registry: MlflowRegistry, two_versions: str
) -> None:
    names = [f"walked-{number}" for number in range(3)]
    for name in names:
        client.create_registered_model(name)
    found = answer(registry.walk)
    assert found[two_versions] == {"candidate": "1"}
    assert [found[name] for name in names] == [{}, {}, {}]


@pytest.mark.usefixtures("two_versions")
def test_a_walk_of_several_pages_is_complete(
    client: MlflowClient, registry: MlflowRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelops_operator.adapters.mlflow._PAGE", 1)
    client.create_registered_model("on-another-page")
    everything = {model.name for model in client.search_registered_models()}
    assert len(everything) > 1
    assert everything <= answer(registry.walk).keys()  # others may have come meanwhile


def test_one_model_is_read_by_name(registry: MlflowRegistry, two_versions: str) -> None:
    assert answer(lambda: registry.model(two_versions)) == {"candidate": "1"}


def test_a_version_tells_its_training_and_its_run(
    client: MlflowClient, registry: MlflowRegistry, two_versions: str
) -> None:
    version = answer(lambda: registry.version(two_versions, "1"))
    assert version.train_id == "t1"
    assert version.run_id == client.get_model_version(two_versions, "1").run_id
    assert version.source.startswith("mlflow-artifacts:")
    assert answer(lambda: registry.version(two_versions, "2")).train_id is None


@pytest.mark.parametrize("tag", ["modelops_train_id", "modelops.train_id"])
def test_the_newest_version_of_a_training_is_found_by_either_tag(
    client: MlflowClient, registry: MlflowRegistry, tag: str
) -> None:
    name = f"found-by-{tag}"
    client.create_registered_model(name)
    for training in ("t1", "t1", "t2"):
        client.create_model_version(name, "s3://nowhere/model", tags={tag: training})
    assert answer(lambda: registry.of_training(name, "t1")) == "2"
    assert answer(lambda: registry.of_training(name, "t3")) is None
    assert answer(lambda: registry.version(name, "3")).train_id == "t2"


def test_a_version_tells_its_python_where_that_is_asked(
    registry: MlflowRegistry, tracking_uri: str, two_versions: str
) -> None:
    asking = MlflowRegistry(tracking_uri, pythons=True)
    assert answer(lambda: asking.version(two_versions, "1")).python == "3.12"
    assert answer(lambda: registry.version(two_versions, "1")).python is None
    # Its files are in a store that nothing here can read.
    assert answer(lambda: asking.version(two_versions, "2")).python is None
    asking.close()


@pytest.mark.parametrize(
    "description",
    [b"", b"{", b"\xff", b"flavors: {}", b"flavors: {python_function: {python_version: new}}"],
)
def test_a_description_that_names_no_python_tells_none(description: bytes) -> None:
    assert python_of(description) is None


def test_a_file_is_read_through_the_servers_artifact_proxy(
    registry: MlflowRegistry, two_versions: str
) -> None:
    content = answer(lambda: registry.read(two_versions, "1", "modelops/profile.json"))
    assert content == b'{"rows": 1}'


def test_what_is_missing_is_named(registry: MlflowRegistry, two_versions: str) -> None:
    cases = {
        Reason.MODEL_NOT_FOUND: lambda: registry.model("nobody"),
        Reason.VERSION_NOT_FOUND: lambda: registry.version(two_versions, "99"),
    }
    for reason, ask in cases.items():
        found = failure(ask)
        assert (found.reason, found.permanent) == (reason, True)
        assert "register it, or correct the spec" in found.message


def test_a_missing_file_is_no_answer(registry: MlflowRegistry, two_versions: str) -> None:
    found = failure(lambda: registry.read(two_versions, "1", "modelops/nothing.json"))
    assert "modelops/nothing.json" in found.message


def test_files_on_somebodys_disk_are_not_read(
    registry: MlflowRegistry, two_versions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever registers a model chooses that path; this server refuses to, older ones did not."""
    client = "mlflow.tracking._model_registry.client.ModelRegistryClient"
    monkeypatch.setattr(f"{client}.get_model_version_download_uri", lambda *_: "/etc")
    found = failure(lambda: registry.read(two_versions, "1", "passwd"))
    assert found.reason == Reason.ARTIFACT_NOT_FOUND
    assert "--artifacts-destination" in found.message


def test_a_server_that_is_down_is_asked_again() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    registry = MlflowRegistry(address)
    asked = [registry.walk, lambda: registry.model("a"), lambda: registry.version("a", "1")]
    found = {failure(ask) for ask in asked}
    assert found == {
        Failure(
            reason=Reason.REGISTRY_UNREACHABLE,
            message=f"MLflow at {address} does not answer ([Errno 111] Connection refused); "
            "it is asked again",
            permanent=False,
        )
    }
    registry.close()


async def _serve(status: int, body: bytes) -> asyncio.Server:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(respond, "127.0.0.1", 0)


DENIED = (Reason.REGISTRY_DENIED, True)
SILENT = (Reason.REGISTRY_UNREACHABLE, False)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b"who are you?", DENIED),
        (403, b"no", DENIED),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', DENIED),
        (429, b"slowly", SILENT),
        (500, b"oh", SILENT),
        (200, b"<html>a proxy's login page</html>", SILENT),
        (200, b"", SILENT),
        (200, b"{}", SILENT),
        (404, b"no such page", SILENT),
    ],
)
def test_what_a_server_may_answer(
    status: int, body: bytes, told: tuple[Reason, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    async def main() -> Failure:
        async with await _serve(status, body) as server:
            port = server.sockets[0].getsockname()[1]
            registry = MlflowRegistry(f"http://127.0.0.1:{port}")
            try:
                await registry.model("two-versions")
            except ModelRegistryError as error:
                return error.failure
            finally:
                registry.close()
        raise AssertionError("there was an answer")

    found = asyncio.run(main())
    assert (found.reason, found.permanent) == told, found.message


def test_a_read_leaves_no_file_behind(
    registry: MlflowRegistry, two_versions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer(lambda: registry.read(two_versions, "1", "modelops/profile.json"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_reported_to_mlflows_makers() -> None:
    """In a process that MLflow does not take for a test, which reports nothing anyway."""
    look = (
        "from modelops_operator.adapters.mlflow import MlflowRegistry;"
        "MlflowRegistry('http://127.0.0.1:1');"
        "from mlflow.telemetry import get_telemetry_client;"
        "print(get_telemetry_client())"
    )
    told = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", look]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
