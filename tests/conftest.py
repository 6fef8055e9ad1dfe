"""What tests of several areas start: once for the whole session."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.apiserver import ApiServer
    from tests.nursery import Nursery
    from tests.registries.servers import RunningRegistry, StartRegistry

ROOT = Path(__file__).parents[1]
# Before anything imports MLflow: tests send no usage statistics, and no thread of MLflow's that
# cannot send them changes the environment while another reads it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A time limit on an example would judge the machine, which others share.
settings.register_profile("short", deadline=None, max_examples=50)
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile("long" if os.environ.get("MODELOPS_LONG_FAULTS") else "short")
# Spark is 400 MB and has an environment of its own: `make test-spark`.
collect_ignore = [] if find_spec("pyspark") else ["spark"]
sys.path.insert(0, str(ROOT))  # `sandbox` is a program of this checkout and not installed


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the MLflow server keeps its database."""
    shared = os.environ.get("TEST_MLFLOW")
    return Path(shared) if shared else tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def tracking_uri(mlflow_folder: Path) -> Iterator[str]:
    """Address of a real MLflow server; areas share it and name their models apart.

    `scripts/test` starts one for all areas and tells its folder in TEST_MLFLOW.
    """
    from tests.mlflow_server import running_mlflow, shared_mlflow

    shared = "TEST_MLFLOW" in os.environ
    with (shared_mlflow if shared else running_mlflow)(mlflow_folder) as address:
        yield address


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ApiServer"]:
    """A real API server with our custom resources and the operator's namespace.

    What OPERATOR asks for, who may do nothing, is in `audit.log` beside its kubeconfig.
    """
    from tests.apiserver import OPERATOR, Kubectl, audit_flags, running_apiserver

    folder = tmp_path_factory.mktemp("apiserver")
    flags = audit_flags(folder, [{"level": "Metadata", "users": [OPERATOR]}])
    users = {OPERATOR: "system:serviceaccounts"}
    with running_apiserver(folder, users=users, flags=flags) as server:
        kubectl = Kubectl(server.kubeconfig)
        kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        kubectl("create", "namespace", "modelops-system")
        yield server


@pytest.fixture(scope="session")
def apiserver(api_server: "ApiServer") -> Path:
    """The administrator's kubeconfig of it."""
    return api_server.kubeconfig


@pytest.fixture(scope="session")
def registry_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's docker-registry."""
    from tests.registries.servers import debian_registry

    return debian_registry(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def start_registry(
    registry_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["StartRegistry"]:
    """Start registries; `extra` is appended to the configuration."""
    from tests.mlflow_server import free_port
    from tests.registries.servers import RunningRegistry, wait_for

    running: list[subprocess.Popen[bytes]] = []

    def start(extra: str = "", program: Path = registry_binary) -> "RunningRegistry":
        folder = tmp_path_factory.mktemp("registry")
        host = f"127.0.0.1:{free_port()}"
        config = folder / "config.yml"
        config.write_text(
            f"""version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "{host}"}}
{extra}"""
        )
        log = (folder / "log").open("wb")
        with log:
            running.append(subprocess.Popen([program, "serve", config], stdout=log, stderr=log))
        wait_for(host, running[-1], folder / "log")
        return RunningRegistry(host, folder / "data")

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def registry(start_registry: "StartRegistry") -> "RunningRegistry":
    return start_registry()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Nursery"]:
    """Where operators' processes come from."""
    from tests.nursery import running_nursery

    with running_nursery(tmp_path_factory.mktemp("operators")) as nursery:
        yield nursery
