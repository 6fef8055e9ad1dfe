"""Fixtures of the shell's tests."""

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.jumping_loop import JumpingLoop

if TYPE_CHECKING:
    from tests.nursery import Nursery
    from tests.shell.operating import Process, World

_numbers = itertools.count()
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Run:
    """Run a coroutine in a loop whose clock jumps over what would be waiting."""

    def run_in_jumps(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(main)

    return run_in_jumps


@pytest.fixture(scope="session")
def system(apiserver: Path) -> Path:
    """The API server, which has the operator's namespace."""
    return apiserver


@pytest.fixture(scope="module")
def operator(
    nursery: "Nursery", system: Path, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Process"]:
    """The operator's process; tests may end it and start it again."""
    from tests.apiserver import Kubectl
    from tests.shell.operating import Process, configuration, running

    # What other tests left would be swept in the middle of what is to be quiet.
    Kubectl(system)("-n", "modelops-system", "delete", "modelimages", "--all")
    folder = tmp_path_factory.mktemp("operator")
    process = Process(nursery, system, configuration(tracking_uri), folder)
    with running(process):
        yield process
        assert process.end() == 0
    stops = [line for line in process.log().splitlines() if '"stops"' in line]
    assert json.loads(stops[-1])["signal"] == "SIGTERM"
    assert "crashed" not in process.log()


@pytest.fixture
def world(system: Path, tracking_uri: str) -> Iterator["World"]:
    """A namespace of its own for each test."""
    from mlflow import MlflowClient

    from tests.apiserver import Kubectl, http_client
    from tests.shell.operating import PATHS, World

    name = f"test-{next(_numbers)}"
    with http_client(system) as api:
        api.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
        yield World(Kubectl(system), api, name, MlflowClient(tracking_uri, tracking_uri))
        api.delete(PATHS["modeldeployment"].format(name))
        api.delete(PATHS["modelimage"].format("modelops-system"))
        api.delete(f"/api/v1/namespaces/{name}")
