"""The platform that the end-to-end tests run on: a sandbox of their own, called `test`.

It is kept between runs where KEEP_SANDBOX=1, for those who work on one test.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.ground import Ground, find_ground
from demo.platform import install, push_images, train

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = "test"


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """A sandbox that is up."""
    yield find_ground(SANDBOX)
    if os.environ.get("KEEP_SANDBOX") != "1":
        subprocess.run(
            [sys.executable, "-m", "sandbox", "down", "--name", SANDBOX], check=True, cwd=ROOT
        )


@pytest.fixture(scope="session")
def platform(ground: Ground) -> Ground:
    """The sandbox with the operator, the builder and three registered models."""
    install(ground, push_images(ground))
    train(ground, "employment")
    return ground


@dataclass(frozen=True)
class Cluster:
    kubeconfig: str
    base_image: str


@pytest.fixture(scope="session")
def cluster(ground: Ground) -> Cluster:
    """What a test of one part needs of the sandbox."""
    return Cluster(ground.kubeconfig, ground.base)


@pytest.fixture
def namespace(ground: Ground, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that enforces the restricted pod security standard."""
    name = "e2e-" + request.node.name.replace("_", "-").lower()[:40].strip("-")
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    ground.kubectl("apply", "-f", "-", given=json.dumps(manifest))
    yield name
    ground.kubectl("delete", "namespace", name, "--wait=false")
