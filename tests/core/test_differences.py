import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.core import children
from modelops_operator.core.differences import differs, digest, sealed
from modelops_operator.core.owner import Owner
from modelops_operator.core.pod_template import Settings, generated
from modelops_operator.core.release import Release

from tests.core.simulation import normalised

pytestmark = pytest.mark.unit

OWNER = Owner(name="employment", namespace="staging", uid="uid-1")
RELEASE = Release(models=(), reference="registry/a@sha256:1", lock="", runtime="0.1.0")
SETTINGS = Settings(
    resources={"requests": {"cpu": "0.5", "memory": "1024Mi"}}, window=timedelta(minutes=5)
)


def wanted(**changes: Any) -> list[dict[str, Any]]:
    settings = Settings(
        resources=changes.get("resources", SETTINGS.resources), window=SETTINGS.window
    )
    pods = generated(OWNER, RELEASE, settings)
    deployment = children.deployment(OWNER, RELEASE, pods, changes.get("replicas", 2))
    return [dict(child) for child in (*children.companions(OWNER), deployment)]


def pod_spec(live: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = live["spec"]["template"]["spec"]
    return spec


def container(live: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod_spec(live)["containers"][0]
    return found


@pytest.mark.parametrize("child", wanted(), ids=lambda child: child["kind"])
def test_what_the_api_server_makes_of_a_manifest_is_no_difference(child: dict[str, Any]) -> None:
    assert not differs(child, normalised(child))


OTHERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an annotation": lambda live: live["metadata"]["annotations"].update(other="x"),
    "a label": lambda live: live["metadata"]["labels"].update(other="x"),
    "a second container": lambda live: pod_spec(live)["containers"].insert(0, {"name": "side"}),
    "a variable": lambda live: container(live)["env"].insert(0, {"name": "A", "value": "b"}),
    "another port": lambda live: container(live)["ports"].insert(0, {"containerPort": 9}),
    "a volume": lambda live: pod_spec(live)["volumes"].append({"name": "x"}),
    "a second owner": lambda live: live["metadata"]["ownerReferences"].insert(0, {"uid": "x"}),
    "a port without its default protocol": lambda live: container(live)["ports"][0].pop("protocol"),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_what_others_add_is_no_difference(change: Callable[[dict[str, Any]], object]) -> None:
    deployment = wanted()[-1]
    live = normalised(deployment)
    change(live)
    differing = change is OTHERS["a port without its default protocol"]
    assert differs(deployment, live) is differing  # the API server always writes the protocol


HAND_EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "image": lambda live: container(live).update(image="other"),
    "replicas": lambda live: live["spec"].update(replicas=7),
    "replicas as text": lambda live: live["spec"].update(replicas="2"),
    "memory": lambda live: container(live)["resources"]["requests"].update(memory="1025Mi"),
    "a quantity that is none": lambda live: container(live)["resources"]["requests"].update(
        cpu="x"
    ),
    "resources": lambda live: container(live).pop("resources"),
    "a variable's value": lambda live: container(live)["env"][0].update(value="0.5"),
    "a variable": lambda live: container(live)["env"].pop(),
    "a capability": lambda live: container(live)["securityContext"]["capabilities"].update(drop=[]),
    "a flag": lambda live: container(live)["securityContext"].update(readOnlyRootFilesystem=False),
    "a flag as a number": lambda live: pod_spec(live).update(enableServiceLinks=0),
    "the account": lambda live: pod_spec(live).pop("serviceAccountName"),
    "a label": lambda live: live["metadata"]["labels"].pop("modelops.dev/deployment"),
    "the owner": lambda live: live["metadata"].pop("ownerReferences"),
    "the hash": lambda live: live["metadata"]["annotations"].pop("modelops.dev/manifest-hash"),
    "a null": lambda live: live["spec"].update(strategy=None),
    "a list": lambda live: pod_spec(live).update(volumes="tmp"),
}


@pytest.mark.parametrize("change", HAND_EDITS.values(), ids=HAND_EDITS)
def test_a_hand_edit_of_a_field_of_ours_is_a_difference(
    change: Callable[[dict[str, Any]], object],
) -> None:
    deployment = wanted()[-1]
    live = normalised(deployment)
    change(live)
    assert differs(deployment, live)


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (1, lambda live: live["spec"]["ingress"].append({})),
        (1, lambda live: live["spec"]["policyTypes"].remove("Egress")),
        (2, lambda live: live["spec"]["ports"][0].update(targetPort=1)),
        (2, lambda live: live["spec"]["selector"].update({"modelops.dev/deployment": "x"})),
        (3, lambda live: live["spec"].update(maxUnavailable=0)),
        (0, lambda live: live.pop("automountServiceAccountToken")),
    ],
)
def test_hand_edits_of_the_other_children_are_seen(
    index: int, change: Callable[[dict[str, Any]], object]
) -> None:
    child = wanted()[index]
    live = normalised(child)
    change(live)
    assert differs(child, live)


def test_a_second_port_of_the_service_is_its_owners_business() -> None:
    service = wanted()[2]
    live = normalised(service)
    live["spec"]["ports"].insert(0, {"port": 81, "protocol": "TCP", "targetPort": 9})
    assert not differs(service, live)


def test_our_own_change_is_a_difference_even_when_it_only_leaves_a_field_out() -> None:
    live = normalised(wanted()[-1])
    assert differs(wanted(resources={})[-1], live)


def test_empty_values_may_be_absent() -> None:
    child = {"metadata": {"name": "a"}, "spec": {"list": [], "map": {}}}
    assert not differs(child, {"metadata": {"name": "a"}, "spec": {}})
    assert differs(child, {"metadata": {"name": "a"}})


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"b": [1, 2]}) != digest({"b": [2, 1]})


def test_sealing_leaves_its_argument_alone() -> None:
    manifest = {"metadata": {"name": "a", "annotations": {"x": "y"}}}
    before = copy.deepcopy(manifest)
    assert sealed(manifest)["metadata"]["annotations"].keys() == {"x", "modelops.dev/manifest-hash"}
    assert manifest == before
