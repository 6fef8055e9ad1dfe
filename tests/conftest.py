"""What tests of several areas start: once for the whole session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
# A time limit on an example would judge the machine, which others share.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
sys.path.insert(0, str(ROOT))  # `sandbox` is a program of this checkout and not installed


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the MLflow server keeps its database."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="session")
def tracking_uri(mlflow_folder: Path) -> Iterator[str]:
    """Address of a real MLflow server; areas share it and name their models apart."""
    from tests.mlflow_server import running_mlflow

    with running_mlflow(mlflow_folder) as address:
        yield address


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kubeconfig for a real API server with our custom resources and the operator's namespace."""
    from tests.apiserver import Kubectl, running_apiserver

    with running_apiserver(tmp_path_factory.mktemp("apiserver")) as kubeconfig:
        kubectl = Kubectl(kubeconfig)
        kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        kubectl("create", "namespace", "modelops-system")
        yield kubeconfig
