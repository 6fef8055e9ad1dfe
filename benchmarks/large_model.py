"""A model of 5 GB: memory, and throughput beside `skopeo copy` of the same layer.

It is registered with proxied artifacts, as a model without our flavor, and holds bytes of chance,
which no compression makes smaller. Peer: skopeo copies the very layer that came of it, from a
folder into the same registry.
"""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from modelops_operator.adapters.oci import Reference, Registry
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ImageModel

from benchmarks.buildah import run_measured
from benchmarks.builder_worker import Worker, spec_of, version_of
from benchmarks.reporting import goal
from demo.ground import Ground

BOUND = 300
"""Megabytes of memory, whatever the model's size."""


def goals_of_large_model(
    ground: Ground, worker: Worker, base: str, megabytes: int
) -> list[dict[str, Any]]:
    """Build a model of so many MB, copy its layer with skopeo, and say how both went."""
    with tempfile.TemporaryDirectory(prefix="modelops-large-") as name:
        folder = Path(name)
        worker.build(spec_of(ground, "large", [register(ground, folder / "small", 1)], base))
        model = register(ground, folder / "large", megabytes)
        usage = worker.build(spec_of(ground, "large", [model], base))
        layout = asyncio.run(download_largest(ground.registry, usage["reference"], folder))
        copy = run_measured(
            [
                *("skopeo", "copy", "--dest-tls-verify=false"),
                *(f"dir:{layout}", f"docker://{ground.registry}/peer/large:1"),
            ],
            folder / "log",
        )
    for what, used in (("our build", usage), ("skopeo copy", copy)):
        print(
            f"{megabytes} MB model  {what:11} {used['seconds']:7.1f} s {used['cpu']:7.1f} s CPU "
            f"{megabytes / used['seconds']:6.0f} MB/s {used['memory']:6.0f} MB memory",
            flush=True,
        )
    return [
        goal(f"model of {megabytes} MB, MB of memory", usage["memory"], BOUND),
        goal(
            f"model of {megabytes} MB, times as long as skopeo copy",
            usage["seconds"] / copy["seconds"],
            2.0,
        ),
    ]


def register(ground: Ground, folder: Path, megabytes: int) -> ImageModel:
    """Register a model of one large file, and keep no copy of it."""
    folder.mkdir()
    description = {
        "flavors": {"python_function": {"loader_module": "mlflow.sklearn"}},
        "signature": {"inputs": '[{"name": "age", "type": "long"}]'},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    (folder / "requirements.txt").write_text(f"scikit-learn=={version('scikit-learn')}\n")
    with (folder / "model.pkl").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    client = MlflowClient(ground.tracking_uri, ground.tracking_uri)
    run = client.create_run("0").info
    client.log_artifacts(run.run_id, str(folder), "model")
    shutil.rmtree(folder)
    with contextlib.suppress(MlflowException):
        client.create_registered_model("large")
    made = client.create_model_version("large", f"{run.artifact_uri}/model", run_id=run.run_id)
    return version_of(client, Role.PREDICTOR, "large", made.version)


async def download_largest(host: str, name: str, folder: Path) -> Path:
    """Write an image of the largest layer alone, in the layout that skopeo calls `dir`."""
    reference = Reference.parse(name)
    layout = folder / "dir"
    layout.mkdir()
    async with Registry(host, insecure=True) as registry:
        found = await registry.manifest(reference.repository, reference.version)
        assert found is not None
        manifest = found.parsed()
        manifest["layers"] = [max(manifest["layers"], key=lambda layer: int(layer["size"]))]
        for blob in (manifest["config"], *manifest["layers"]):
            path = layout / blob["digest"].partition(":")[2]
            await registry.download(reference.repository, blob["digest"], path)
    (layout / "manifest.json").write_text(json.dumps(manifest))
    (layout / "version").write_text("Directory Transport Version: 1.1\n")
    return layout
