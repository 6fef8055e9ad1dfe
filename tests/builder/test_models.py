"""Fetching from a real MLflow server."""

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from modelops_operator.api.facts import Role
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.models import FetchedModel, Serving, fetch
from modelops_runtime.bento import ServingRuntime

from tests.builder.conftest import RunningMlflow
from tests.builder.releases import SIGNED, release
from tests.registries.proxy import proxied

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

PLAIN = {
    "MLmodel": SIGNED,
    "requirements.txt": b"mlflow==3.17.2\nscikit-learn==1.7.2\n",
    "code/deep/module.py": b"raise SystemExit('never run')\n",
    "model.pkl": b"\x80\x04never loaded",
}


async def test_takes_the_whole_folder_of_a_model_without_our_flavor(
    mlflow: Any, tmp_path: Path
) -> None:
    model = mlflow.register("plain", PLAIN, tmp_path / "in")
    folder = tmp_path / "out"
    folder.mkdir()
    fetched = await fetch(model, mlflow.uri, folder)
    assert not fetched.fast
    assert {name: path.read_bytes() for name, path in fetched.files().items()} == PLAIN
    assert "mlflow-skinny==3.17.2" in fetched.requirements().wanted


@pytest.mark.parametrize("role", Role)
async def test_through_mlflow_the_whole_folder_of_a_predictor_is_needed(
    mlflow: RunningMlflow, tmp_path: Path, role: Role
) -> None:
    models = {model.role: model for model in release(mlflow, tmp_path, "whole", "whole")}
    folder = tmp_path / "out"
    folder.mkdir()
    fetched = await fetch(models[role], mlflow.uri, folder, serving=Serving(ServingRuntime.PYFUNC))
    through_mlflow = role is Role.PREDICTOR
    assert fetched.fast != through_mlflow
    assert ("unwanted.txt" in fetched.files()) == through_mlflow
    assert "modelops/flavor.json" in fetched.files()


async def test_fast_refuses_a_model_without_our_flavor(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.register("plain", PLAIN, tmp_path / "in")
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(BuildError, match=r"model plain version \d+ has no fast form") as caught:
        await fetch(model, mlflow.uri, folder, serving=Serving(ServingRuntime.FAST))
    assert caught.value.failure.reason == "FastFormMissing"
    assert caught.value.failure.permanent
    assert "modelops_training" in caught.value.failure.message
    assert not any(folder.iterdir())


async def test_another_python_than_the_recorded_one_is_refused_where_it_matters(
    mlflow: RunningMlflow, tmp_path: Path
) -> None:
    recorded = {
        "MLmodel": SIGNED.replace(b"loader_module: mlflow.sklearn", b"python_version: 3.12.4")
    }
    model = mlflow.register("newer", PLAIN | recorded, tmp_path / "in")
    for python in ("3.12", None, "3.11"):
        folder = tmp_path / f"out-{python}"
        folder.mkdir()
        if python != "3.11":
            assert not (await fetch(model, mlflow.uri, folder, serving=Serving(python=python))).fast
            continue
        with pytest.raises(BuildError, match=r"was logged with Python 3\.12") as caught:
            await fetch(model, mlflow.uri, folder, serving=Serving(python=python))
        assert caught.value.failure.reason == "BaseImageNotFound"
        assert 'builder.bases["3.12"]' in caught.value.failure.message


async def test_a_version_without_files_is_told(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.register("empty", {}, tmp_path / "in")
    with pytest.raises(BuildError, match="model empty version 1 has no files") as caught:
        await fetch(model, mlflow.uri, tmp_path)
    assert caught.value.failure.reason == "ArtifactNotFound"
    assert caught.value.failure.permanent


async def test_a_folder_that_is_no_model_is_told(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.register("nomodel", {"weights.bin": b"1"}, tmp_path / "in")
    with pytest.raises(BuildError, match=r"no MLmodel among .*weights.bin"):
        await fetch(model, mlflow.uri, tmp_path)


async def test_a_version_deleted_during_the_build_is_told(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.register("deleted", PLAIN, tmp_path / "in")
    mlflow.client().delete_model_version("deleted", "1")
    with pytest.raises(BuildError, match="model deleted version 1") as caught:
        await fetch(model, mlflow.uri, tmp_path)
    assert caught.value.failure.reason == "ArtifactNotFound"


async def test_a_version_deleted_while_it_is_fetched_is_told(
    mlflow: RunningMlflow, tmp_path: Path
) -> None:
    """What was listed is gone when it is asked for, and no new attempt brings it back."""
    model = mlflow.register("vanishing", PLAIN, tmp_path / "in")
    deleted: list[str] = []

    def delete() -> None:
        mlflow.client().delete_model_version(model.name, model.version)
        store: Any = get_artifact_repository(model.source, tracking_uri=mlflow.uri)
        store.delete_artifacts()

    async def vanish(request: web.Request, _body: bytes) -> None:
        if "/mlflow-artifacts/artifacts/" in request.path and not deleted:
            deleted.append(request.path)
            await asyncio.to_thread(delete)

    folder = tmp_path / "out"
    folder.mkdir()
    async with proxied(mlflow.uri, vanish) as proxy:
        with pytest.raises(BuildError, match="model vanishing version 1 has no files") as caught:
            await fetch(model, proxy.origin, folder)
    assert deleted
    assert caught.value.failure.reason == "ArtifactNotFound"
    assert caught.value.failure.permanent


async def test_nothing_is_listed_twice(mlflow: RunningMlflow, tmp_path: Path) -> None:
    models = {model.role: model for model in release(mlflow, tmp_path, "lists", "lists")}
    folder = tmp_path / "out"
    folder.mkdir()
    async with proxied(mlflow.uri) as proxy:
        await fetch(models[Role.PREDICTOR], proxy.origin, folder)
    asked = [path for _, path, _ in proxy.seen]
    assert len(set(asked)) == len(asked)
    listed = [path for path in asked if "artifacts?path=" in path]
    assert len(listed) == 1, "our flavor's folder"


async def test_files_on_somebodys_disk_are_never_read(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.register("local", PLAIN, tmp_path / "in")
    # Newer servers refuse such a source, older ones hold it: so does this one's database.
    with sqlite3.connect(mlflow.database) as database:
        database.execute(
            "UPDATE model_versions SET source = ?, storage_location = ? WHERE name = 'local'",
            (f"file://{tmp_path}/in", f"file://{tmp_path}/in"),
        )
    database.close()
    with pytest.raises(BuildError, match="a path on somebody's disk"):
        await fetch(model, mlflow.uri, tmp_path)


async def test_a_server_that_does_not_answer_is_told(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model = mlflow.register("plain", PLAIN, tmp_path / "in")
    with pytest.raises(BuildError, match="cannot be fetched from MLflow at http://127") as caught:
        await fetch(model, "http://127.0.0.1:9", tmp_path)
    assert caught.value.failure.reason == "ModelRegistryUnreachable"
    assert not caught.value.failure.permanent


async def test_a_model_without_a_signature_is_told_what_to_do(mlflow: Any, tmp_path: Path) -> None:
    """Its pods would say the same, each time they start."""
    files = PLAIN | {"MLmodel": b"flavors: {python_function: {}}"}
    model = mlflow.register("unsigned", files, tmp_path / "in")
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(BuildError, match=r"no inputs: MLmodel: .*log the model") as caught:
        await fetch(model, mlflow.uri, folder)
    assert caught.value.failure.reason == "ModelInvalid"
    assert caught.value.failure.permanent


def outside(folder: Path) -> list[Path]:
    return list(folder.rglob("outside"))


@pytest.mark.parametrize(
    "name", ["../../outside", "/outside", "code/../../outside", "%2e%2e/outside"]
)
async def test_names_that_leave_the_model_are_refused(
    mlflow: RunningMlflow, tmp_path: Path, name: str
) -> None:
    """An artifact store, or whoever sits before it, tells of a file elsewhere."""

    async def forge(request: web.Request, body: bytes) -> web.Response | None:
        if not request.path.endswith("/mlflow-artifacts/artifacts"):
            return None
        answer = await proxy.pass_on(request, body)
        assert isinstance(answer.body, bytes)
        listing = json.loads(answer.body)
        listing.setdefault("files", []).append({"path": name, "is_dir": False, "file_size": 4})
        return web.json_response(listing)

    model = mlflow.register("plain", PLAIN, tmp_path / "in")
    folder = tmp_path / "a" / "b" / "out"
    folder.mkdir(parents=True)
    async with proxied(mlflow.uri, forge) as proxy:
        with pytest.raises(BuildError, match="whose name is not taken") as caught:
            await fetch(model, proxy.origin, folder)
    assert caught.value.failure.reason == "ModelInvalid"
    assert caught.value.failure.permanent
    assert outside(tmp_path) == []


async def test_links_and_devices_are_refused(mlflow: Any, tmp_path: Path) -> None:
    model = mlflow.register("plain", PLAIN, tmp_path / "in")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(BuildError, match="link, which is not a plain file"):
        FetchedModel(model, tmp_path, fast=False).files()
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError, match="pipe, which is not a plain file") as caught:
        FetchedModel(model, tmp_path, fast=False).files()
    assert caught.value.failure.reason == "ModelInvalid"
    assert caught.value.failure.permanent
