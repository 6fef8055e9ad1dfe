"""`modelops history`, against a real API server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from modelops_operator.cli.main import main

from tests.api.objects import GOOD
from tests.apiserver import Kubectl

pytestmark = pytest.mark.contract

HISTORY = [
    {
        "number": 2,
        "revision": "b" * 10,
        "models": [
            {"role": "predictor", "name": "employment", "alias": "candidate", "version": "12"},
            {"role": "drift", "name": "employment_drift", "alias": "candidate", "version": "12"},
        ],
        "image": "sha256:" + "2" * 64,
        "cause": "AliasMoved",
        "requestedBy": "model registry",
        "startedAt": "2026-03-02T12:00:00Z",
        "outcome": "Progressing",
    },
    {
        "number": 1,
        "revision": "a" * 10,
        "models": [{"role": "predictor", "name": "employment", "version": "11"}],
        "image": "sha256:" + "1" * 64,
        "profile": "Pyfunc",
        "cause": "Edit",
        "requestedBy": "argocd-controller",
        "startedAt": "2026-03-01T12:00:00Z",
        "finishedAt": "2026-03-01T12:01:00Z",
        "outcome": "Failed",
        "message": "PodsCrashing: pod a exited with code 1",
    },
]


@pytest.fixture(scope="module")
def namespace(apiserver: Path) -> Iterator[str]:
    """A namespace with one object, whose history the status has."""
    kubectl = Kubectl(apiserver)
    kubectl("create", "namespace", "history")
    kubectl("-n", "history", "create", "-f", "-", stdin=json.dumps(GOOD[0].manifest()))
    patch = json.dumps({"status": {"observedGeneration": 1, "history": HISTORY}})
    arguments = ("--subresource=status", "--type=merge", "-p", patch)
    kubectl("-n", "history", "patch", "mdep", "employment", *arguments)
    yield "history"
    kubectl("-n", "history", "delete", "mdep", "--all")
    kubectl("delete", "namespace", "history", "--wait=false")


def ask(kubeconfig: Path, *arguments: str) -> Result:
    environment = {"KUBECONFIG": str(kubeconfig)}
    return CliRunner().invoke(main, ["history", *arguments], env=environment)


def test_it_lists_the_revisions_for_people(apiserver: Path, namespace: str) -> None:
    lines = ask(apiserver, "employment", "-n", namespace).output.splitlines()
    assert lines[0].split("   ")[0] == "NUMBER"
    assert lines[1].split() == [
        *("2", "2026-03-02T12:00:00Z", "Progressing", "AliasMoved", "model", "registry"),
        *("employment/12", "employment_drift/12", "sha256:222222222222"),
    ]
    assert lines[2].split()[:5] == [
        *("1", "2026-03-01T12:00:00Z", "Failed", "Edit", "argocd-controller")
    ]


def test_it_gives_them_to_scripts_as_they_are_stored(apiserver: Path, namespace: str) -> None:
    told: Any = json.loads(ask(apiserver, "employment", "-n", namespace, "-o", "json").output)
    assert told == HISTORY


def test_without_a_namespace_it_is_that_of_the_context(apiserver: Path, namespace: str) -> None:
    missing = ask(apiserver, "employment")
    assert missing.exit_code == 1
    assert "no ModelDeployment employment in the namespace default" in missing.output
    moved = apiserver.with_name("moved")
    moved.write_text(apiserver.read_text().replace("namespace: default", f"namespace: {namespace}"))
    assert ask(moved, "employment").exit_code == 0


def test_what_stands_in_the_way_is_told(tmp_path: Path) -> None:
    refused = ask(tmp_path / "none", "employment")
    assert refused.exit_code == 1
    assert "Error: ModelDeployment employment: " in refused.output
