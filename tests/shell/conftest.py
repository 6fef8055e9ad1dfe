"""Fixtures of the shell's tests."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.jumping_loop import JumpingLoop

if TYPE_CHECKING:
    from tests.shell.operating import World

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


@pytest.fixture
def world(system: Path, tracking_uri: str) -> Iterator["World"]:
    """A namespace of its own for each test."""
    from mlflow import MlflowClient

    from tests.apiserver import Kubectl
    from tests.shell.operating import World

    name, kubectl = f"test-{next(_numbers)}", Kubectl(system)
    kubectl("create", "namespace", name)
    yield World(kubectl, name, MlflowClient(tracking_uri, tracking_uri))
    kubectl("-n", name, "delete", "modeldeployments", "--all")
    kubectl("-n", "modelops-system", "delete", "modelimages", "--all")
    kubectl("delete", "namespace", name, "--wait=false")
