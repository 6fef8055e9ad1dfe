"""The proof of an image: built of trained models, pulled, unpacked, entered, and asked."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.resources import ImageModel, ImageRuntime, ModelImageSpec
from modelops_operator.builder.build import Builder
from modelops_runtime.bento import ServingRuntime

from tests.builder.conftest import RunningMlflow, Unpack
from tests.builder.entering import NEEDS_ROOT, in_image
from tests.registries.servers import RunningRegistry

pytestmark = [
    pytest.mark.contract,
    # MLflow 3.17 compares a column index with a range when it saves an input example.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
    NEEDS_ROOT,
]
ROWS = [{"age": 30, "sex": "F"}, {"age": 80, "sex": "M"}]
STORE = "/tmp/store"
BENTOML = """
import sys
from bentoml_cli.cli import cli

for line in sys.argv[1:]:
    cli.main(line.split(), standalone_mode=False)
"""
"""Runs several commands of BentoML's in one process: it is their imports that take time."""


@dataclass(frozen=True)
class Unpacked:
    """An image's files, and what its configuration says of starting it."""

    root: Path
    environment: Sequence[str]
    entrypoint: Sequence[str]

    def run(self, *command: str, **variables: str) -> str:
        """Run a program in it and give its output."""
        settings = [*self.environment, *written(variables)]
        done = subprocess.run(
            in_image(self.root, settings, command), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self, command: Sequence[str], **variables: str) -> Iterator[httpx.Client]:
        """Run a server in it; give a client of it once it is ready."""
        from tests.mlflow_server import free_port

        port = str(free_port())
        settings = [*self.environment, "MODELOPS_DEPLOYMENT=test/small", *written(variables)]
        arguments = [port if part == "3000" else part for part in command]
        log = self.root / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                in_image(self.root, settings, arguments),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_ready(client, process, log)
                yield client
        finally:
            process.terminate()  # the first process alone, as a kubelet does
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise


def written(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def trained_models(tracking_uri: str) -> tuple[ImageModel, ...]:
    """Train three small models on made-up people and register them."""
    from modelops_training import register, train

    random = np.random.default_rng(0)
    age = random.integers(16, 90, 3000)
    sex = random.choice(["F", "M"], 3000)
    employed = (age < 60) & (random.random(3000) < 0.8)
    frame = pd.DataFrame({"age": age, "sex": sex, "employed": employed.astype(int)})
    trained = train(frame, "employed", rounds=5)
    made = register(trained, "small", alias=None, tracking_uri=tracking_uri)
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


MakeImage = Callable[[ServingRuntime], Unpacked]


@pytest.fixture(scope="module")
def make_image(
    mlflow: RunningMlflow,
    configuration: OperatorConfig,
    unpack: Unpack,
    registry: RunningRegistry,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeImage:
    """Build an image of the trained models for a runtime, and lay its files out."""
    models = trained_models(mlflow.uri)

    async def build(spec: ModelImageSpec, root: Path) -> Any:
        async with Builder(configuration) as builder:
            built = await builder.build(spec, lambda *_: None)
        await unpack(built.reference, root)
        async with registry.connect() as client:
            manifest = await client.manifest("modelops/small", built.digest)
            assert manifest is not None
            digest = manifest.parsed()["config"]["digest"]
            return json.loads(await client.blob("modelops/small", digest))["config"]

    def make(runtime: ServingRuntime) -> Unpacked:
        spec = ModelImageSpec(
            models=models,
            tracking_uri=mlflow.uri,
            repository=f"{registry.host}/modelops/small",
            runtime=ImageRuntime(version="0.1.0", profile=runtime),
            python="3.11",
            platforms=("linux/amd64",),
            base=configuration.builder.bases["3.11"],
        )
        root = tmp_path_factory.mktemp("root")
        root.chmod(0o755)
        config = asyncio.run(build(spec, root))
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")  # as kubelets write it
        return Unpacked(root, config["Env"], config["Entrypoint"])

    return make


@pytest.fixture(scope="module")
def image(make_image: MakeImage) -> Unpacked:
    return make_image(ServingRuntime.AUTO)


@dataclass(frozen=True)
class Served:
    """The image, serving, and what it said when it started."""

    client: httpx.Client
    log: str


@pytest.fixture(scope="module")
def served(image: Unpacked) -> Iterator[Served]:
    with image.serving(image.entrypoint) as client:
        yield Served(client, (image.root / "log").read_text())


def test_the_image_serves_what_was_trained(served: Served) -> None:
    client = served.client
    answer = client.post("/predict", json=ROWS)
    page = client.get("/")
    document = client.get("/docs.json").json()
    tried = {
        (path, name): client.post(
            path, content=body(example["value"]), headers={"content-type": media_type}
        )
        for path, operations in document["paths"].items()
        for media_type, described in request_bodies(operations)
        for name, example in described["examples"].items()
    }
    assert answer.status_code == 200, answer.text
    assert "predictions" in answer.text
    assert page.status_code == 200
    assert {path.rpartition("/")[2] for path, _ in tried} == {"predict", "infer", "invocations"}
    assert {each.status_code for each in tried.values()} == {200}, tried


def test_through_mlflow_the_same_is_answered(served: Served, make_image: MakeImage) -> None:
    fast = served.client.post("/predict", json=ROWS).json()
    through_mlflow = make_image(ServingRuntime.PYFUNC)
    with through_mlflow.serving(through_mlflow.entrypoint) as client:
        slow = client.post("/predict", json=ROWS).json()
    assert (fast["model"].pop("form"), slow["model"].pop("form")) == ("treelite", "pyfunc")
    assert slow.pop("probabilities") == [
        pytest.approx(row, abs=1e-9) for row in fast.pop("probabilities")
    ]
    assert slow == fast
    assert "served by treelite: no code that came with it is run" in served.log
    log = (through_mlflow.root / "log").read_text()
    assert "served through MLflow: code that came with it runs in this pod" in log


def test_bentoml_s_own_tools_take_the_bento(image: Unpacked, served: Served) -> None:
    python = "/opt/venv/bin/python3"
    # The command imports archives only.
    image.run(
        *(python, "-c", "import bentoml; bentoml.import_bento('/opt/bento', 'folder')"),
        BENTOML_HOME=STORE,
    )
    listed = image.run(python, "-c", BENTOML, "list -o json", BENTOML_HOME=STORE)
    (bento,) = json.loads(listed[listed.index("[") :])
    image.run(
        *(python, "-c", BENTOML, f"get {bento['tag']}"),
        *(f"export {bento['tag']} /tmp/exported.bento", f"delete -y {bento['tag']}"),
        "import /tmp/exported.bento",
        BENTOML_HOME=STORE,
    )
    command = ["/opt/venv/bin/bentoml", "serve", bento["tag"], "--port", "3000"]
    answers = served.client.post("/predict", json=ROWS).json()
    with image.serving(command, BENTOML_HOME=STORE) as client:
        assert client.post("/predict", json=ROWS).json() == answers


def request_bodies(operations: dict[str, Any]) -> Any:
    """Give the media types that an operation takes, and what the document says of each."""
    return operations.get("post", {}).get("requestBody", {}).get("content", {}).items()


def body(value: Any) -> bytes:
    """Write an example as it is sent."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
