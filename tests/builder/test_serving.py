"""The proof of an image: trained models, built, pulled, laid where they belong, and asked."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.resources import ImageModel, ImageRuntime, ModelImageSpec
from modelops_operator.builder.build import Builder

pytestmark = [
    pytest.mark.contract,
    pytest.mark.anyio,
    # MLflow 3.17 compares a column index with a range when it saves an input example.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
    pytest.mark.skipif(os.geteuid() != 0, reason="laying the image over /opt takes root"),
    pytest.mark.skipif(
        not Path("/usr/bin/python3.11").exists(), reason="the base image's Python is not here"
    ),
]


def trained_models(tracking_uri: str) -> tuple[ImageModel, ...]:
    """Train three small models on made-up people and register them."""
    from modelops_training import register, train

    random = np.random.default_rng(0)
    age = random.integers(16, 90, 3000)
    sex = random.choice(["F", "M"], 3000)
    employed = (age < 60) & (random.random(3000) < 0.8)
    frame = pd.DataFrame({"age": age, "sex": sex, "employed": employed.astype(int)})
    made = register(train(frame, "employed", rounds=5), "small", tracking_uri=tracking_uri)
    return tuple(
        ImageModel.model_validate(
            {
                "role": version.role,
                "name": version.name,
                "version": version.version,
                "runId": made.run_id,
                "source": f"models:/{version.model_id}",
            }
        )
        for version in made.versions
    )


@contextmanager
def serving(rootfs: Path, environment: list[str], command: list[str], port: int) -> Iterator[str]:
    """Run the image's own command with its files over /opt, in a mount namespace of its own."""
    settings = [f"'{line}'" for line in [*environment, "MODELOPS_DEPLOYMENT=test/small"]]
    arguments = [str(port) if part == "3000" else part for part in command]
    line = f"mount --rbind {rootfs}/opt /opt && exec env -i {' '.join([*settings, *arguments])}"
    log = rootfs / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", line],
            cwd="/tmp",
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{url}/readyz").is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        else:
            raise AssertionError(log.read_text())
        yield url
    finally:
        process.terminate()  # the first process alone, as a kubelet does
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


async def test_the_image_serves_what_was_trained(
    mlflow: Any,
    configuration: OperatorConfig,
    unpack: Callable[[str, Path], Awaitable[None]],
    registry: Any,
    tmp_path: Path,
) -> None:
    from tests.mlflow_server import free_port

    spec = ModelImageSpec(
        models=trained_models(mlflow.uri),
        tracking_uri=mlflow.uri,
        repository=f"{registry.host}/modelops/small",
        runtime=ImageRuntime(version="0.1.0"),
        python="3.11",
        platforms=("linux/amd64",),
        base=configuration.builder.bases["3.11"],
    )
    async with Builder(configuration) as builder:
        built = await builder.build(spec, lambda *_: None)
    await unpack(built.reference, tmp_path)
    async with registry.connect() as client:
        manifest = await client.manifest("modelops/small", built.digest)
        blob = await client.blob("modelops/small", manifest.parsed()["config"]["digest"])
    config = httpx.Response(200, content=blob).json()["config"]
    rows = [{"age": 30, "sex": "F"}, {"age": 80, "sex": "M"}]
    with serving(tmp_path, config["Env"], config["Entrypoint"], free_port()) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            answer = await client.post("/predict", json=rows)
            page = await client.get("/")
            document = (await client.get("/docs.json")).json()
            tried = {
                (path, name): await client.post(path, content=body(example["value"]), headers=kind)
                for path, operations in document["paths"].items()
                for media_type, described in request_bodies(operations)
                for name, example in described["examples"].items()
                for kind in [{"content-type": media_type}]
            }
    assert answer.status_code == 200, answer.text
    assert "predictions" in answer.text
    assert page.status_code == 200
    assert {path.rpartition("/")[2] for path, _ in tried} == {"predict", "infer", "invocations"}
    assert {each.status_code for each in tried.values()} == {200}, tried


def request_bodies(operations: dict[str, Any]) -> Any:
    """Give the media types that an operation takes, and what the document says of each."""
    return operations.get("post", {}).get("requestBody", {}).get("content", {}).items()


def body(value: Any) -> bytes:
    """Write an example as it is sent."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
