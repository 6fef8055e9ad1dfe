"""The definitions on a real API server: what it takes, refuses, fills in and prints."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelops_operator.api.resources import (
    GROUP,
    ModelDeployment,
    ModelDeploymentSpec,
    ModelImage,
    ModelImageSpec,
)
from pydantic import BaseModel

from tests.api.objects import BAD, GOOD, IMAGE_SPEC, IMMUTABLE, Bad, Good
from tests.apiserver import Kubectl, http_client

pytestmark = pytest.mark.contract

MODELS: dict[str, type[ModelDeployment | ModelImage]] = {
    "ModelDeployment": ModelDeployment,
    "ModelImage": ModelImage,
}


@pytest.fixture(scope="module")
def kubectl(apiserver: Path) -> Kubectl:
    return Kubectl(apiserver)


@pytest.fixture(scope="module")
def connection(apiserver: Path) -> Iterator[httpx.Client]:
    with http_client(apiserver) as client:
        yield client


@pytest.fixture
def deployment(kubectl: Kubectl) -> Iterator[dict[str, Any]]:
    """The smallest ModelDeployment, as the API server stored it."""
    created = create(kubectl, GOOD[0].manifest())
    yield created
    kubectl("delete", "mdep", created["metadata"]["name"], "--ignore-not-found")


def create(kubectl: Kubectl, manifest: dict[str, Any], *flags: str) -> dict[str, Any]:
    printed = kubectl("create", "-f", "-", "-o", "json", *flags, stdin=json.dumps(manifest))
    stored: dict[str, Any] = json.loads(printed)
    return stored


def try_to_create(connection: httpx.Client, manifest: dict[str, Any]) -> httpx.Response:
    """Ask the API server what it makes of an object, as `kubectl create` does."""
    plural = f"{manifest['kind'].lower()}s"
    return connection.post(
        f"/apis/{GROUP}/v1alpha1/namespaces/default/{plural}",
        params={"dryRun": "All", "fieldValidation": "Strict"},
        json=manifest,
    )


def set_status(kubectl: Kubectl, kind: str, name: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)


CONDITION = {
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "Because",
    "message": "",
}


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.title)
def test_takes_what_pydantic_takes_with_the_same_defaults(
    connection: httpx.Client, case: Good
) -> None:
    answer = try_to_create(connection, case.manifest())

    stored = answer.json()
    assert answer.status_code == 201, stored["message"]
    expected = MODELS[case.kind].model_validate(case.manifest())
    assert MODELS[case.kind].model_validate(stored).spec == expected.spec
    assert shape(stored["spec"]) == shape(expected.spec.to_manifest())


def shape(tree: Any) -> Any:
    """Give the fields of a tree without the values, which can be written in several ways."""
    if isinstance(tree, dict):
        return {key: shape(value) for key, value in tree.items()}
    return [shape(item) for item in tree] if isinstance(tree, list) else None


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.title)
def test_refuses_what_pydantic_refuses(connection: httpx.Client, case: Bad) -> None:
    answer = try_to_create(connection, case.manifest())

    message = answer.json()["message"]
    assert 400 <= answer.status_code < 500
    assert case.field in message
    assert (case.server_says or case.says) in message


def test_a_model_image_never_changes(kubectl: Kubectl) -> None:
    name = create(kubectl, Good(title="", kind="ModelImage", spec=IMAGE_SPEC).manifest())[
        "metadata"
    ]["name"]
    done = kubectl.attempt(
        *("patch", "mimg", name, "--type=merge", "-p", '{"spec": {"python": "3.12"}}')
    )
    kubectl("label", "mimg", name, "a=b")
    kubectl("delete", "mimg", name)

    assert done.returncode == 1
    assert IMMUTABLE in done.stderr


def test_a_new_object_is_not_taken_for_a_finished_one(deployment: dict[str, Any]) -> None:
    assert deployment["status"] == {"observedGeneration": -1}


def test_applying_the_same_again_changes_nothing(kubectl: Kubectl) -> None:
    manifest = json.dumps(next(case for case in GOOD if case.title == "everything").manifest())

    def apply() -> tuple[str, int]:
        printed = kubectl("apply", "--server-side", "-f", "-", "-o", "json", stdin=manifest)
        metadata = json.loads(printed)["metadata"]
        return metadata["resourceVersion"], metadata["generation"]

    apply()
    # Until a status was written, the API server adds the default to what it reads, and so finds
    # that the next write differs from what it has stored.
    set_status(kubectl, "mdep", "employment", {"observedGeneration": 1})
    applied = [apply() for _ in range(3)]
    kubectl("delete", "mdep", "employment")

    assert applied[0] == applied[1] == applied[2]
    assert applied[0][1] == 1


def test_applying_does_not_take_suspend_or_replicas_back(
    kubectl: Kubectl, deployment: dict[str, Any]
) -> None:
    name = deployment["metadata"]["name"]
    manifest = json.dumps(GOOD[0].manifest())
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)
    kubectl("patch", "mdep", name, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    kubectl("scale", "mdep", name, "--replicas=5")
    kubectl("apply", "--server-side", "-f", "-", stdin=manifest)

    spec = json.loads(kubectl("get", "mdep", name, "-o", "json"))["spec"]
    assert spec["suspend"] is True
    assert spec["serving"]["replicas"] == 5


def test_an_unknown_field_is_warned_of_and_pruned(kubectl: Kubectl) -> None:
    manifest = GOOD[0].manifest()
    manifest["spec"]["sevring"] = {"replicas": 2}
    done = kubectl.attempt(
        *("create", "-f", "-", "--dry-run=server", "--validate=warn", "-o", "json"),
        stdin=json.dumps(manifest),
    )

    assert 'unknown field "spec.sevring"' in done.stderr
    assert "sevring" not in json.loads(done.stdout)["spec"]


def test_prints_what_a_person_asks_for(kubectl: Kubectl, deployment: dict[str, Any]) -> None:
    name = deployment["metadata"]["name"]
    status = {
        "observedGeneration": 1,
        "models": [
            {"role": "drift", "name": "d", "version": "3"},
            {"role": "predictor", "name": "employment", "version": "12"},
        ],
        "conditions": [
            {"type": "Ready", "status": "True", **CONDITION},
            {"type": "DriftDetected", "status": "False", **CONDITION},
            {"type": "OutliersDetected", "status": "Unknown", **CONDITION},
        ],
        "image": {"reference": "registry/modelops/employment@sha256:0"},
    }
    set_status(kubectl, "mdep", name, status)

    narrow = [line.split() for line in kubectl("get", "mdep").splitlines()]
    assert narrow[0] == ["NAME", "MODEL", "VERSION", "READY", "DRIFT", "OUTLIERS", "AGE"]
    assert narrow[1][:-1] == [name, "employment", "12", "True", "False", "Unknown"]
    wide = [line.split() for line in kubectl("get", "mdep", "-o", "wide").splitlines()]
    assert wide[0][-2:] == ["IMAGE", "AGE"]
    assert wide[1][-2] == "registry/modelops/employment@sha256:0"


def test_prints_images(kubectl: Kubectl) -> None:
    create(kubectl, Good(title="", kind="ModelImage", name="one", spec=IMAGE_SPEC).manifest())
    status = {
        "conditions": [{"type": "Ready", "status": "False", **CONDITION}],
        "step": "Pushing",
        "startedAt": "2026-01-01T00:00:00Z",
        "bytes": {"pushed": 70, "reused": 0},
        "observedGeneration": 1,
    }
    set_status(kubectl, "mimg", "one", status)
    printed = [line.split() for line in kubectl("get", "mimg").splitlines()]
    wide = kubectl("get", "mimg", "-o", "wide").splitlines()
    kubectl("delete", "mimg", "one")

    columns = ["NAME", "MODELS", "READY", "REASON", "STEP", "PUSHED", "SINCE", "AGE"]
    assert printed[0] == columns
    assert printed[1][:6] == ["one", "employment", "False", "Because", "Pushing", "70"]
    assert wide[0].split() == [*columns[:-1], "IMAGE", "AGE"]


def test_scales(kubectl: Kubectl, deployment: dict[str, Any]) -> None:
    name = deployment["metadata"]["name"]
    status = {"observedGeneration": 1, "replicas": 1, "selector": "modelops.dev/deployment=e"}
    set_status(kubectl, "mdep", name, status)
    kubectl("scale", "mdep", name, "--replicas=3")

    path = f"/apis/{GROUP}/v1alpha1/namespaces/default/modeldeployments/{name}/scale"
    scale = json.loads(kubectl("get", "--raw", path))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "modelops.dev/deployment=e"}


def test_finds_deployments_of_a_model(kubectl: Kubectl, deployment: dict[str, Any]) -> None:
    field = "spec.models.predictor.name"
    found = kubectl("get", "mdep", f"--field-selector={field}=employment", "-o", "name")
    others = kubectl("get", "mdep", f"--field-selector={field}=other", "-o", "name")

    assert found.strip().endswith(deployment["metadata"]["name"])
    assert others == ""


def test_the_category_lists_both_kinds(kubectl: Kubectl, deployment: dict[str, Any]) -> None:
    create(kubectl, Good(title="", kind="ModelImage", name="one", spec=IMAGE_SPEC).manifest())
    listed = kubectl("get", "modelops", "-o", "name")
    kubectl("delete", "mimg", "one")

    assert set(listed.split()) == {
        f"modeldeployment.modelops.dev/{deployment['metadata']['name']}",
        "modelimage.modelops.dev/one",
    }


@pytest.mark.parametrize(
    ("resource", "model"),
    [("modeldeployment", ModelDeploymentSpec), ("modelimage", ModelImageSpec)],
)
def test_explains_every_field(kubectl: Kubectl, resource: str, model: type[BaseModel]) -> None:
    printed = kubectl("explain", f"{resource}.spec", "--recursive")
    paths = re.findall(r"^( +)(\w+)\t<", printed, flags=re.MULTILINE)
    assert {name for indent, name in paths if len(indent) == 2} == {
        field.alias for field in model.model_fields.values()
    }

    for _, name in paths[:1]:
        explained = kubectl("explain", f"{resource}.spec.{name}")
        assert "<empty>" not in explained


def test_a_status_as_the_operator_writes_it_is_stored_whole(
    kubectl: Kubectl, deployment: dict[str, Any]
) -> None:
    name = deployment["metadata"]["name"]
    status = {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "True", **CONDITION}],
        "models": [
            {"role": "predictor", "name": "e", "alias": "a", "version": "1", "runId": "3f"},
        ],
        "image": {"reference": "r/e@sha256:0", "lock": "sha256:1"},
        "runtime": {"version": "0.1.0"},
        "revision": "0123456789",
        "url": "http://employment.default.svc",
        "replicas": 2,
        "readyReplicas": 1,
        "selector": "modelops.dev/deployment=employment",
        "health": {
            "evaluatedAt": "2026-01-01T00:00:00Z",
            "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:05:00Z"},
            "rows": 15000,
            "drift": {
                "severity": "Alert",
                "value": "0.31",
                "threshold": "0.25",
                "features": [{"name": "AGEP", "psi": "0.31", "severity": "Alert"}],
            },
            "outliers": {
                "severity": "None",
                "rate": "0.01",
                "reference": "0.01",
                "threshold": "1.5",
            },
            "service": {"requests": 1, "errorRate": "0", "p50": "3ms", "p99": "12ms"},
        },
        "history": [
            {
                "number": number,
                "revision": "0123456789",
                "models": [{"role": "predictor", "name": "e", "version": "1"}],
                "image": "sha256:1",
                "profile": "Fast",
                "cause": "Edit",
                "requestedBy": "kubectl",
                "startedAt": "2026-01-01T00:00:00Z",
                "finishedAt": "2026-01-01T00:01:00Z",
                "outcome": "Failed",
                "message": "PodsCrashing",
            }
            for number in (2, 1)
        ],
        "handledRequests": {"modelops.dev/rebuild": "1"},
    }
    set_status(kubectl, "mdep", name, status)

    stored = json.loads(kubectl("get", "mdep", name, "-o", "json"))
    assert stored["status"] == status
    parsed = ModelDeployment.model_validate(stored)
    assert parsed.status.stored == status
    assert parsed.status.to_manifest() == status
