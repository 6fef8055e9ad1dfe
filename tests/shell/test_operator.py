"""The whole operator's process, against a real API server and a real MLflow."""

import json
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.shell.leader import LEASE_SECONDS

from tests.api.objects import POD_SETTINGS
from tests.shell.operating import (
    CHILDREN,
    Process,
    World,
    configuration,
    eventually,
    running,
)

pytestmark = pytest.mark.contract

KINDS = {"ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment"}
TAKE_OVER = 15.0
"""Seconds until somebody acts after the leader was killed."""
QUIET = 5.0
"""Seconds in which nothing is to be written: several polls and a sweep."""


def children(world: World, name: str) -> set[str]:
    return {live["kind"] for live in world.list(CHILDREN) if live["metadata"]["name"] == name}


@pytest.mark.usefixtures("operator")
def test_a_model_that_is_not_there_is_told_and_followed_when_it_comes(world: World) -> None:
    world.deployment("employment")
    stalled = eventually(lambda: world.condition("employment", "Stalled"))
    assert (stalled["reason"], stalled["status"]) == ("ModelNotFound", "True")
    assert f"{world.namespace}-employment" in stalled["message"]
    assert world.status("employment")["observedGeneration"] == 1
    world.register("employment")
    eventually(lambda: world.image("employment"))
    eventually(lambda: not world.condition("employment", "Stalled"))


def test_from_apply_to_ready(world: World, operator: Process) -> None:
    reference = world.serve("employment")
    assert children(world, "employment") == KINDS
    live = world.live("deployment", "employment")
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == reference
    status = world.status("employment")
    assert status["image"]["reference"] == reference
    assert status["models"][0]["version"] == "1"
    assert status["readyReplicas"] == 1
    told = [line for line in operator.decisions() if line["namespace"] == world.namespace]
    assert told[-1]["ready"] == "True"
    assert all(one != other for one, other in pairwise(told))


@pytest.mark.usefixtures("operator")
def test_nothing_is_ever_written_to_the_users_part_of_the_object(world: World) -> None:
    world.serve("employment")
    live = world.live("modeldeployment", "employment")
    assert not live["metadata"].keys() & {"finalizers", "annotations", "labels"}
    text = world.kubectl(
        *("-n", world.namespace, "get", "modeldeployment", "employment"),
        *("-o", "json", "--show-managed-fields"),
    )
    fields = json.loads(text)["metadata"]["managedFields"]
    ours = [one for one in fields if one["manager"] == "modelops-operator"]
    assert [one["subresource"] for one in ours] == ["status"]
    assert {one["manager"] for one in fields} == {"modelops-operator", "kubectl"}


@pytest.mark.usefixtures("operator")
def test_a_brand_new_object_is_resolved(world: World) -> None:
    world.register("employment")
    world.deployment("employment")
    eventually(lambda: world.image("employment"))


@pytest.mark.usefixtures("operator")
def test_a_child_that_is_edited_or_deleted_comes_back(world: World) -> None:
    world.serve("employment")
    place = ("-n", world.namespace)
    world.kubectl(*place, "scale", "deployment", "employment", "--replicas=0")
    eventually(lambda: world.live("deployment", "employment")["spec"]["replicas"] == 1)
    patch = '{"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9}]}}'
    world.kubectl(*place, "patch", "service", "employment", "-p", patch)

    def port() -> object:
        return world.live("service", "employment")["spec"]["ports"][0]["targetPort"]

    eventually(lambda: port() == "http")
    for kind in KINDS:
        before = world.live(kind, "employment")["metadata"]["uid"]
        world.kubectl(*place, "delete", kind, "employment")
        eventually(lambda kind=kind: world.get(kind, "employment"))  # type: ignore[misc]
        assert world.live(kind, "employment")["metadata"]["uid"] != before
    label = "app.kubernetes.io/managed-by"
    world.kubectl(*place, "label", "service", "employment", f"{label}-")
    eventually(lambda: label in world.live("service", "employment")["metadata"]["labels"])


def test_nothing_is_written_once_converged(world: World, operator: Process) -> None:
    world.serve("employment")
    world.deployment("absent")
    eventually(lambda: world.reason("absent", "Stalled") == "ModelNotFound")

    def quiet() -> bool:
        before = world.versions(), operator.writes()
        time.sleep(QUIET)  # that nothing is written takes time to see
        return (world.versions(), operator.writes()) == before

    eventually(quiet)


@pytest.mark.usefixtures("operator")
def test_an_object_of_somebody_else_is_neither_touched_nor_adopted(world: World) -> None:
    place = ("-n", world.namespace)
    world.kubectl(*place, "create", "service", "clusterip", "employment", "--tcp=80:80")
    theirs = world.get("service", "employment")
    world.register("employment")
    world.deployment("employment")
    eventually(lambda: world.reason("employment", "Available") == "NameCollision")
    world.build("employment")
    eventually(lambda: world.reason("employment", "Stalled") == "NameCollision")
    assert world.get("service", "employment") == theirs
    assert children(world, "employment") == {"Service"}


def test_every_setting_reaches_the_pods_and_disappears_again(
    world: World, operator: Process
) -> None:
    """R6, R7 and R8 with a real server-side apply."""
    world.serve("employment")
    before = world.live("deployment", "employment")["spec"]["template"]
    world.deployment("employment", serving=POD_SETTINGS)
    eventually(lambda: "nodeSelector" in pod_spec(world))
    spec, template = pod_spec(world), world.live("deployment", "employment")["spec"]["template"]
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == POD_SETTINGS[name]
    assert spec["serviceAccountName"] == POD_SETTINGS["serviceAccountName"]
    assert spec["dnsPolicy"] == "Default"
    (server,) = spec["containers"]
    variables = [one for one in server["env"] if not one["name"].startswith("MODELOPS_")]
    given = [one for one in POD_SETTINGS["env"] if not one["name"].startswith("MODELOPS_")]
    assert [one["name"] for one in variables] == [one["name"] for one in given]
    assert server["startupProbe"]["failureThreshold"] == 600
    assert POD_SETTINGS["podLabels"].items() <= template["metadata"]["labels"].items()
    # What the API server makes of it differs from what we wrote, and is not written again.
    time.sleep(2)
    writes = operator.writes()
    time.sleep(2)
    assert operator.writes() == writes
    world.deployment("employment")
    eventually(lambda: world.live("deployment", "employment")["spec"]["template"] == before)


def pod_spec(world: World) -> dict[str, Any]:
    spec: dict[str, Any] = world.live("deployment", "employment")["spec"]["template"]["spec"]
    return spec


@pytest.mark.usefixtures("operator")
def test_the_number_of_replicas_is_handed_to_an_autoscaler_and_taken_back(world: World) -> None:
    world.serve("employment")
    resources = {"requests": {"cpu": "100m"}}
    scaling = {"minReplicas": 1, "maxReplicas": 8}
    world.deployment("employment", serving={"replicas": 3, "resources": resources})
    eventually(lambda: replicas(world) == 3)
    command = ("get", "deployment", "employment", "--watch", "-o", "jsonpath={.spec.replicas} ")
    watch = world.kubectl.follow("-n", world.namespace, *command)
    assert watch.stdout is not None
    seen = [int(watch.stdout.read(1))]  # it watches
    world.deployment("employment", serving={"autoscaling": scaling, "resources": resources})
    autoscaler = eventually(lambda: world.get("hpa", "employment")) or {}
    assert autoscaler["spec"]["maxReplicas"] == 8
    # As the autoscaler does; from then on the number is its own.
    place = ("-n", world.namespace)
    world.kubectl(*place, "scale", "deployment", "employment", "--replicas=5")
    resources = {"requests": {"cpu": "200m"}}
    world.deployment("employment", serving={"autoscaling": scaling, "resources": resources})
    eventually(lambda: pod_spec(world)["containers"][0]["resources"] == resources)
    assert replicas(world) == 5
    watch.terminate()
    seen += [int(number) for number in watch.communicate()[0].split()]
    assert set(seen) == {3, 5}
    assert seen == sorted(seen)
    world.deployment("employment", serving={"replicas": 2})
    eventually(lambda: replicas(world) == 2)
    eventually(lambda: world.get("hpa", "employment") is None)


def replicas(world: World) -> int:
    number: int = world.live("deployment", "employment")["spec"]["replicas"]
    return number


@pytest.mark.usefixtures("operator")
def test_a_moved_alias_is_followed(world: World) -> None:
    world.serve("employment")
    world.register("employment", version=2)
    reference = world.build("employment", version=2)
    eventually(lambda: world.status("employment")["image"]["reference"] == reference)
    assert world.status("employment")["models"][0]["version"] == "2"
    asked = [
        (entry["number"], entry["cause"], entry["requestedBy"], entry["models"][0]["version"])
        for entry in world.status("employment")["history"]
    ]
    assert asked == [(2, "AliasMoved", "model registry", "2"), (1, "Edit", "kubectl", "1")]


@pytest.mark.usefixtures("operator")
def test_a_broken_edit_leaves_what_runs_alone(world: World) -> None:
    reference = world.serve("employment")
    world.deployment("employment", models={"predictor": {"name": "nobody", "alias": "candidate"}})
    eventually(lambda: world.reason("employment", "Stalled") == "ModelNotFound")
    assert world.condition("employment", "Ready")["status"] == "True"
    live = world.live("deployment", "employment")
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == reference
    world.deployment("employment")
    eventually(lambda: not world.condition("employment", "Stalled"))


@pytest.mark.usefixtures("operator")
def test_a_suspended_object_is_left_alone(world: World) -> None:
    world.serve("employment")
    world.deployment("employment", suspend=True)
    eventually(lambda: world.reason("employment", "Ready") == "Suspended")
    world.kubectl("-n", world.namespace, "scale", "deployment", "employment", "--replicas=5")
    time.sleep(1)
    live = world.live("deployment", "employment")
    assert live["spec"]["replicas"] == 5


def test_a_deleted_object_is_forgotten(world: World, operator: Process) -> None:
    world.serve("employment")
    world.kubectl("-n", world.namespace, "delete", "modeldeployment", "employment", "--timeout=60s")
    time.sleep(2)
    writes = operator.writes()
    world.kubectl("-n", world.namespace, "delete", CHILDREN, "--all")
    time.sleep(1)
    assert operator.writes() == writes
    assert children(world, "employment") == set()


@pytest.mark.usefixtures("operator")
def test_events_tell_of_transitions_only(world: World) -> None:
    world.serve("employment")

    def told() -> list[str]:
        events = world.list("events")
        return [one["reason"] for one in events if one["involvedObject"]["name"] == "employment"]

    eventually(lambda: {"Resolved", "Built", "Serving"} <= set(told()))
    assert len(told()) == len(set(told()))


def test_killed_at_any_moment_and_started_again_it_comes_to_the_same(
    world: World, operator: Process
) -> None:
    world.serve("employment")
    time.sleep(2)
    before = world.versions()
    operator.end(signal.SIGKILL)
    operator.start()
    time.sleep(QUIET)
    assert operator.writes() == 0
    assert world.versions() == before
    operator.end(signal.SIGKILL)
    world.kubectl("-n", world.namespace, "delete", "service", "employment")
    world.register("employment", version=2)
    operator.start()
    world.build("employment", version=2)
    eventually(lambda: world.status("employment")["models"][0]["version"] == "2")
    assert children(world, "employment") == KINDS


def test_two_replicas_and_one_of_them_acts(
    world: World, operator: Process, tracking_uri: str, tmp_path: Path
) -> None:
    operator.end()  # it would act, too: under another lease
    config = configuration(tracking_uri, leaderElection={"leaseName": "pair"})
    first, second = (
        Process(operator.nursery, operator.kubeconfig, config, tmp_path / name)
        for name in ("first", "second")
    )

    def acts(name: str) -> float:
        started = time.monotonic()
        world.deployment(name)
        eventually(lambda: world.reason(name, "Stalled") == "ModelNotFound")
        return time.monotonic() - started

    with running(first), running(second):
        acts("one")
        assert first.writes() > 0
        assert second.writes() == 0
        # A clean stop hands over at once, long before the lease would end.
        assert first.end() == 0
        assert acts("two") < LEASE_SECONDS
        assert second.writes() > 0
        # A leader that is paused for longer than its lease writes nothing when it goes on.
        first.start()
        second.send(signal.SIGSTOP)
        paused = time.monotonic()
        acts("three")
        assert first.writes() > 0
        time.sleep(max(0.0, LEASE_SECONDS - (time.monotonic() - paused)))
        world.kubectl("-n", world.namespace, "delete", "service", "three")
        second.send(signal.SIGCONT)
        writes = eventually(second.writes)
        eventually(lambda: world.get("service", "three"))
        time.sleep(2)
        assert second.writes() == writes
        # A leader that is killed is succeeded when its lease ends, by one that knows everything.
        first.end(signal.SIGKILL)
        assert acts("four") < TAKE_OVER
        assert second.writes() > writes
    operator.start()
