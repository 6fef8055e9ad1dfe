"""The platform that the end-to-end tests run on: a sandbox of their own, called `test`.

It is kept between runs where KEEP_SANDBOX=1, for those who work on one test.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.ground import Ground, find_ground
from sandbox import cgroups, places

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = "test"


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """A sandbox that is up, and waits for no tests beside it."""
    found = find_ground(SANDBOX)
    if (sandbox := places.find(SANDBOX)) is not None:
        cgroups.favour(sandbox)
    yield found
    if os.environ.get("KEEP_SANDBOX") != "1":
        subprocess.run(
            [sys.executable, "-m", "sandbox", "down", "--name", SANDBOX], check=True, cwd=ROOT
        )


@dataclass(frozen=True)
class Story:
    """What `make demo` said, step by step: the lines below each title."""

    steps: Mapping[str, list[str]]

    def step(self, title: str) -> list[str]:
        return next(lines for name, lines in self.steps.items() if title in name)


def make(target: str, ground: Ground) -> str:
    """Run make as somebody does who has a cluster, a registry and an MLflow already."""
    settings = {
        "KUBECONFIG": ground.kubeconfig,
        "REGISTRY": ground.registry,
        "REGISTRY_INSECURE": str(int(ground.insecure)),
        "MLFLOW_TRACKING_URI": ground.tracking_uri,
        "INDEX_URL": ground.index,
        "CA_BUNDLE": ground.ca_bundle or "",
        "KUBECTL": ground.kubectl_program,
        "HELM": ground.helm_program,
    }
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    outcome = subprocess.run(
        ["make", target, *(f"{name}={value}" for name, value in settings.items())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=ROOT,
        env=outer,
    )
    assert outcome.returncode == 0, outcome.stdout
    return outcome.stdout


@pytest.fixture(scope="session")
def story(ground: Ground) -> Story:
    """The demo, told on the sandbox as on any platform that exists already."""
    title, steps = "", dict[str, list[str]]()
    for line in make("demo", ground).splitlines():
        if line.startswith("=== "):
            title = line
        steps.setdefault(title, []).append(line)
    return Story(steps)


@pytest.fixture(scope="session")
def platform(ground: Ground, story: Story) -> Ground:
    """The sandbox with the operator, the builder and registered models, as the demo left it."""
    assert story.steps
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
