"""Properties that hold for every history of edits, failures, repairs and kills."""

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_operator.api.config import RuntimeConfig
from modelops_operator.api.facts import Failure, Role, Signed
from modelops_operator.core.release import RELEASE, Release
from modelops_operator.core.state import ChildRef

from tests.core.simulation import (
    CHILDREN,
    DEPLOYMENT,
    Cluster,
    configuration,
    version,
)

pytestmark = pytest.mark.unit

Deed = Callable[[Cluster], object]

MISSING = Failure(reason="AliasNotFound", message="no alias candidate", permanent=True)
SILENT = Failure(reason="ModelRegistryUnreachable", message="timed out", permanent=False)
SIGNED = Signed(key="sha256:" + "f" * 64)
UNSIGNED = Failure(reason="SignatureMissing", message="nobody has signed it", permanent=True)


def move_aliases(number: str) -> Deed:
    return lambda cluster: cluster.registry.update({role: version(role, number) for role in Role})


def tear(cluster: Cluster) -> None:
    cluster.registry[Role.DRIFT] = version(Role.DRIFT, "7")


def fail_registry(failure: Failure) -> Deed:
    return lambda cluster: cluster.registry.update(dict.fromkeys(Role, failure))


def forget_registry(cluster: Cluster) -> None:
    cluster.registry.clear()


def wait(cluster: Cluster) -> None:
    cluster.now += timedelta(minutes=1)


def scale(replicas: int) -> Deed:
    return lambda cluster: cluster.edit(lambda spec: spec["serving"].update(replicas=replicas))


def give_memory(amount: str) -> Deed:
    def change(spec: dict[str, Any]) -> None:
        spec["serving"]["resources"] = {"limits": {"cpu": "1", "memory": amount}}

    return lambda cluster: cluster.edit(change)


def pin(number: str) -> Deed:
    def change(spec: dict[str, Any]) -> None:
        spec["models"] = {"predictor": {"name": "employment", "version": number}}

    def pinned(cluster: Cluster) -> None:
        cluster.edit(change)
        cluster.registry = {Role.PREDICTOR: version(Role.PREDICTOR, number)}

    return pinned


def choose_runtime(runtime: str) -> Deed:
    return lambda cluster: cluster.edit(lambda spec: spec["serving"].update(runtime=runtime))


def register_without_fast_form(cluster: Cluster) -> None:
    cluster.plain_versions.add("2")


def autoscale(cluster: Cluster) -> None:
    scaling = {"minReplicas": 2, "maxReplicas": 5}
    resources = {"requests": {"cpu": "500m"}}
    cluster.edit(lambda spec: spec["serving"].update(autoscaling=scaling, resources=resources))


def scale_by_hand(cluster: Cluster) -> None:
    cluster.edit(lambda spec: spec["serving"].pop("autoscaling", None))


def load(replicas: int) -> Deed:
    return lambda cluster: cluster.autoscale(replicas)


def overlay(**spec: Any) -> Deed:
    def change(serving: dict[str, Any]) -> None:
        serving["podTemplate"] = {"spec": spec}

    return lambda cluster: cluster.edit(lambda spec: change(spec["serving"]))


def suspend(cluster: Cluster) -> None:
    cluster.edit(lambda spec: spec.update(suspend=True))


def delete_child(ref: ChildRef) -> Deed:
    return lambda cluster: cluster.children.pop(ref, None)


def edit_deployment(cluster: Cluster) -> None:
    if live := cluster.children.get(DEPLOYMENT):
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "example/other"
        live["metadata"]["generation"] += 1


def damage_annotations(cluster: Cluster) -> None:
    if live := cluster.children.get(DEPLOYMENT):
        live["metadata"]["annotations"] = {"modelops.dev/release": "{"}


def wish_rebuild(value: str) -> Deed:
    return lambda cluster: cluster.annotate("modelops.dev/rebuild", value)


def wish_update(value: str) -> Deed:
    return lambda cluster: cluster.annotate("modelops.dev/update", value)


def upgrade_operator(cluster: Cluster) -> None:
    runtime = RuntimeConfig(version="0.2.0")
    cluster.config = cluster.config.model_copy(update={"runtime": runtime})


def break_versions(cluster: Cluster) -> None:
    cluster.broken_versions.add("2")


def break_builds(cluster: Cluster) -> None:
    cluster.broken_builds.add("3")


def look_for_signatures(cluster: Cluster) -> None:
    """Let the registry tell of what is asked for; images of version 2 are not signed."""
    for reference in cluster.decide().verify:
        number = cluster.versions_by_reference.get(reference, "2")
        cluster.signatures[reference] = UNSIGNED if number == "2" else SIGNED


def restart_operator(cluster: Cluster) -> None:
    cluster.signatures.clear()


def forge_status(cluster: Cluster) -> None:
    if "image" in cluster.status:
        cluster.status["image"]["reference"] = "example/forged@sha256:" + "0" * 64


def kill_after(writes: int) -> Deed:
    return lambda cluster: cluster.reconcile(killed_after=writes)


DEEDS: tuple[Deed, ...] = (
    Cluster.reconcile,
    Cluster.reconcile,
    Cluster.build,
    Cluster.roll,
    Cluster.converge,
    *(kill_after(writes) for writes in range(5)),
    *(move_aliases(number) for number in "123"),
    tear,
    fail_registry(MISSING),
    fail_registry(SILENT),
    forget_registry,
    wait,
    *(scale(replicas) for replicas in (0, 1, 3)),
    give_memory("2Gi"),
    *(choose_runtime(runtime) for runtime in ("Auto", "Fast", "Pyfunc")),
    register_without_fast_form,
    pin("1"),
    autoscale,
    scale_by_hand,
    load(4),
    overlay(dnsPolicy="Default"),
    overlay(hostNetwork=True),
    wish_update("a"),
    suspend,
    *(delete_child(ref) for ref in sorted(CHILDREN)),
    edit_deployment,
    damage_annotations,
    wish_rebuild("a"),
    upgrade_operator,
    break_versions,
    break_builds,
)
HARMLESS: tuple[Deed, ...] = (
    Cluster.reconcile,
    kill_after(1),
    tear,
    fail_registry(MISSING),
    fail_registry(SILENT),
    forget_registry,
    wait,
    move_aliases("3"),
    upgrade_operator,
    wish_rebuild("b"),
)

TRUST: tuple[Deed, ...] = (
    Cluster.reconcile,
    Cluster.build,
    Cluster.converge,
    look_for_signatures,
    restart_operator,
    *(move_aliases(number) for number in "123"),
    forget_registry,
    give_memory("2Gi"),
    delete_child(DEPLOYMENT),
    damage_annotations,
    forge_status,
    upgrade_operator,
)

histories = st.lists(st.sampled_from(DEEDS), max_size=14)
many = settings(suppress_health_check=[HealthCheck.too_slow])


def go_through(history: list[Deed], cluster: Cluster | None = None) -> Cluster:
    cluster = cluster or Cluster()
    for deed in history:
        deed(cluster)
    return cluster


def write_first_spec(spec: dict[str, Any]) -> None:
    spec.clear()
    spec.update(copy.deepcopy(Cluster().object["spec"]))


def mend(cluster: Cluster) -> Cluster:
    """Bring everything around to one and the same state, and let it come to rest."""
    cluster.broken_builds.clear()
    cluster.broken_versions.clear()
    cluster.config = configuration()
    cluster.object["metadata"]["annotations"] = {}
    cluster.edit(write_first_spec)
    move_aliases("9")(cluster)
    cluster.converge()
    return cluster


@many
@given(histories)
def test_a_converged_object_is_left_alone(history: list[Deed]) -> None:
    cluster = go_through(history)
    cluster.converge()
    plan = cluster.decide()
    assert (plan.apply, plan.delete) == ((), ())
    assert plan.image is None
    assert plan.status == cluster.status
    assert plan.events == ()


@many
@given(histories)
def test_every_history_ends_in_the_same_state(history: list[Deed]) -> None:
    cluster, fresh = mend(go_through(history)), mend(Cluster())
    for ref in CHILDREN:
        assert without_count(cluster.children[ref]) == without_count(fresh.children[ref])
    told, expected = dict(cluster.status), dict(fresh.status)
    told.pop("handledRequests", None)
    assert cluster.conditions == fresh.conditions
    for bookkeeping in ("observedGeneration", "conditions"):
        told.pop(bookkeeping)
        expected.pop(bookkeeping)
    newest, as_newest = (status.pop("history")[0] for status in (told, expected))
    for lasting in ("revision", "models", "image", "outcome"):
        assert newest[lasting] == as_newest[lasting]
    assert told == expected


def without_count(live: dict[str, Any]) -> dict[str, Any]:
    """Leave out how often it was changed."""
    live = copy.deepcopy(live)
    del live["metadata"]["generation"]
    live.get("status", {}).pop("observedGeneration", None)
    return live


@many
@given(histories)
def test_the_status_speaks_of_the_generation_that_was_seen(history: list[Deed]) -> None:
    cluster = go_through(history)
    plan = cluster.decide()
    generation = cluster.object["metadata"]["generation"]
    assert plan.status["observedGeneration"] == generation
    for condition in plan.status["conditions"]:
        assert condition["observedGeneration"] == generation
        assert len(condition["message"].encode()) <= 1024


@many
@given(histories)
def test_reconciling_and_stalled_exclude_each_other(history: list[Deed]) -> None:
    cluster = go_through(history)
    found = {
        type_ for type_, (status, _) in cluster.decide_conditions().items() if status == "True"
    }
    assert not {"Reconciling", "Stalled"} <= found


@many
@given(histories, histories)
def test_a_transition_time_moves_with_its_status_only(
    first: list[Deed], second: list[Deed]
) -> None:
    cluster = go_through(first)
    cluster.reconcile()
    before = {condition["type"]: condition for condition in cluster.status["conditions"]}
    go_through(second, cluster)
    after = cluster.decide().status["conditions"]
    cluster.reconcile()
    for condition in after:
        old = before.get(condition["type"])
        if old is not None and old["lastTransitionTime"] == condition["lastTransitionTime"]:
            assert old["status"] == condition["status"]


@many
@given(st.lists(st.sampled_from(HARMLESS), max_size=10))
def test_what_runs_is_untouched_while_a_new_release_fails(history: list[Deed]) -> None:
    cluster = Cluster()
    cluster.converge()
    before = copy.deepcopy(cluster.children[DEPLOYMENT])
    cluster.broken_builds.update("123")
    for deed in history:
        deed(cluster)
        cluster.build()
        plan = cluster.reconcile()
        assert plan.delete == ()
        assert cluster.children[DEPLOYMENT] == before
        assert cluster.conditions["Ready"] == ("True", "Serving")


@many
@given(st.lists(st.sampled_from(TRUST), max_size=14))
def test_only_signed_images_are_rolled_out_where_that_is_asked_for(history: list[Deed]) -> None:
    verification = {"mode": "Enforce", "keys": "/cosign.pub"}
    cluster = Cluster(config=configuration(verification=verification))
    go_through([Cluster.converge, look_for_signatures, Cluster.converge], cluster)
    assert DEPLOYMENT in cluster.children
    for deed in history:
        deed(cluster)
        if live := cluster.children.get(DEPLOYMENT):
            image = live["spec"]["template"]["spec"]["containers"][0]["image"]
            assert cluster.versions_by_reference.get(image) in {"1", "3"}


@many
@given(histories)
def test_the_history_tells_every_revision_that_was_rolled_out_once(history: list[Deed]) -> None:
    cluster = Cluster()
    seen: list[str] = []
    for deed in history:
        deed(cluster)
        live = cluster.children.get(DEPLOYMENT)
        annotations = live["metadata"]["annotations"] if live else {}
        release = Release.from_json(annotations.get(RELEASE, ""))
        cluster.object["spec"].pop("suspend", None)
        cluster.reconcile()
        if release is not None and release.revision not in seen[-1:]:
            seen.append(release.revision)
    live = cluster.children.get(DEPLOYMENT)
    told = cluster.status.get("history", [])
    numbers = [entry["number"] for entry in told]
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(told) <= 10
    revisions = [entry["revision"] for entry in reversed(told)]
    following = iter(revisions)
    assert all(revision in following for revision in seen[-10:])
    assert all(entry["outcome"] != "Progressing" for entry in told[1:])


@many
@given(histories)
def test_ready_is_never_said_of_pods_that_are_not_there(history: list[Deed]) -> None:
    cluster = go_through(history)
    cluster.reconcile()
    status, reason = cluster.conditions["Ready"]
    live = cluster.children.get(DEPLOYMENT, {})
    if status == "True" and reason not in {"ScaledToZero", "Suspended"}:
        assert live["status"]["availableReplicas"] > 0


@many
@given(histories)
def test_a_converged_object_without_trouble_serves_what_it_should(history: list[Deed]) -> None:
    cluster = go_through(history)
    cluster.converge()
    marks = cluster.conditions.keys() & {"Reconciling", "Stalled"}
    if marks or cluster.object["spec"].get("suspend"):
        return
    live, serving = cluster.children[DEPLOYMENT], cluster.object["spec"]["serving"]
    assert cluster.conditions["Ready"][0] == "True"
    if scaling := serving.get("autoscaling"):
        assert 1 <= live["spec"]["replicas"] <= scaling["maxReplicas"]
    else:
        assert live["spec"]["replicas"] == serving["replicas"]
    assert live["status"].get("availableReplicas", 0) == live["spec"]["replicas"]
