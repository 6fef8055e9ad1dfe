from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.core import children, pod_template
from modelops_operator.core.owner import Owner
from modelops_operator.core.pod_template import Settings
from modelops_operator.core.release import Release

from tests.core.simulation import normalised

pytestmark = pytest.mark.unit

OWNER = Owner(name="employment", namespace="staging", uid="uid-1")
RELEASE = Release(models=(), reference="registry/a@sha256:1", lock="", runtime="0.1.0")
SETTINGS = Settings(resources={"limits": {"memory": "1Gi"}}, window=timedelta(seconds=90))


def deployment(settings: Settings = SETTINGS) -> dict[str, Any]:
    pods = pod_template.generated(OWNER, RELEASE, settings)
    return dict(children.deployment(OWNER, RELEASE, pods, 2))


def all_children() -> dict[str, dict[str, Any]]:
    manifests = (*children.companions(OWNER), deployment())
    return {manifest["kind"]: dict(manifest) for manifest in manifests}


def test_there_is_one_child_of_each_kind_in_the_order_of_creation() -> None:
    assert tuple(all_children()) == children.KINDS


@pytest.mark.parametrize("kind", children.KINDS)
def test_every_child_is_named_labelled_and_owned(kind: str) -> None:
    metadata = all_children()[kind]["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("employment", "staging")
    assert metadata["labels"] == {
        "app.kubernetes.io/name": "model-server",
        "app.kubernetes.io/instance": "employment",
        "app.kubernetes.io/managed-by": "modelops-operator",
        "modelops.dev/deployment": "employment",
    }
    (owner,) = metadata["ownerReferences"]
    assert owner["controller"] is owner["blockOwnerDeletion"] is True
    assert (owner["kind"], owner["uid"]) == ("ModelDeployment", "uid-1")
    assert "modelops.dev/manifest-hash" in metadata["annotations"]


def test_the_pods_pass_the_restricted_standard() -> None:
    spec = deployment()["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(volume.keys() - {"name"})) for volume in spec["volumes"]} == {"emptyDir"}
    assert spec["automountServiceAccountToken"] is False


def test_the_container_is_told_who_it_is() -> None:
    (container,) = deployment()["spec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert told == {
        "MODELOPS_DEPLOYMENT": "staging/employment",
        "MODELOPS_REVISION": RELEASE.revision,
        "MODELOPS_WINDOW_SECONDS": "90",
        "MODELOPS_POD": None,
    }
    assert container["resources"] == {"limits": {"memory": "1Gi"}}


def test_a_rollout_never_has_fewer_pods_than_wanted() -> None:
    manifest = deployment()
    assert manifest["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = manifest["spec"]["template"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < drain < pod["terminationGracePeriodSeconds"]


def test_selectors_select_the_pods_and_leave_the_revision_open() -> None:
    found = all_children()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selector = {"modelops.dev/deployment": "employment"}
    assert selector.items() <= labels.items()
    assert labels["modelops.dev/revision"] == RELEASE.revision
    assert found["Service"]["spec"]["selector"] == selector
    for kind, field in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        assert found[kind]["spec"][field] == {"matchLabels": selector}


def test_without_resources_the_field_is_absent() -> None:
    manifest = deployment(settings=Settings(resources={}, window=timedelta(minutes=5)))
    assert "resources" not in manifest["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"seal":"x","inputs":"y","pod":{}}', "1"])
def test_a_damaged_memory_of_the_pods_is_not_believed(text: str) -> None:
    live = {"metadata": {"annotations": {"modelops.dev/template": text}}}
    assert pod_template.remembered_template(live) is None


def test_an_edited_memory_of_the_pods_is_not_believed() -> None:
    live = normalised(deployment())
    annotations = live["metadata"]["annotations"]
    memory = annotations["modelops.dev/template"]
    annotations["modelops.dev/template"] = memory.replace("65532", "0")
    assert pod_template.remembered_template(live) is None


@pytest.mark.parametrize(
    ("owners", "ours", "predecessors"),
    [
        ([{"controller": True, "uid": "uid-1"}], True, False),
        ([{"uid": "uid-1"}], False, False),
        ([], False, False),
        (None, False, False),
        ([{"controller": True, "uid": "x", "kind": "Rollout", "name": "employment"}], False, False),
        (
            [{"controller": True, "uid": "x", "kind": "ModelDeployment", "name": "employment"}],
            False,
            True,
        ),
        ([{"controller": True, "uid": "x", "kind": "ModelDeployment", "name": "b"}], False, False),
    ],
)
def test_who_controls_an_object(owners: Any, ours: bool, predecessors: bool) -> None:  # noqa: FBT001 - a table
    live = {"metadata": {"ownerReferences": owners}}
    assert OWNER.owns(live) is ours
    assert OWNER.succeeds_owner_of(live) is predecessors
