"""Scenarios: what a user does, and what the status says to kubectl, Flux and Helm."""

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.resources import ModelDeployment, ModelDeploymentStatus
from modelops_operator.core.reconcile import invalid
from modelops_operator.core.state import ChildRef, Health, Plan
from pydantic import ValidationError

from tests.core.simulation import (
    BASE,
    CHILDREN,
    DEPLOYMENT,
    Cluster,
    configuration,
    deployment_status,
    finished_build,
    message,
    pod,
    revision_of,
    version,
)

pytestmark = pytest.mark.unit

MISSING = Failure(reason="AliasNotFound", message="employment has no alias", permanent=True)
SILENT = Failure(reason="ModelRegistryUnreachable", message="timed out", permanent=False)
SERVICE = ChildRef("Service", "employment")


def kstatus(cluster: Cluster) -> str:
    """Judge as Flux and `helm --wait` do: sigs.k8s.io/cli-utils, pkg/kstatus/status/core.go."""
    status, metadata = cluster.status, cluster.object["metadata"]
    if status.get("observedGeneration") != metadata["generation"]:
        return "InProgress"
    found = {type_: value for type_, (value, _) in cluster.conditions.items()}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


def kubectl_wait(cluster: Cluster) -> bool:
    """Judge as `kubectl wait --for=condition=Ready` does."""
    ready = next((c for c in cluster.status.get("conditions", ()) if c["type"] == "Ready"), None)
    if ready is None or ready["observedGeneration"] < cluster.object["metadata"]["generation"]:
        return False
    return bool(ready["status"] == "True")


def serving() -> Cluster:
    """Give a cluster with two replicas of version 1, all well."""
    cluster = Cluster()
    cluster.converge()
    cluster.events.clear()
    return cluster


def roll_halfway(cluster: Cluster) -> None:
    """Let the first new pod become ready beside the two old ones."""
    live = cluster.children[DEPLOYMENT]
    new = pod("new", revision_of(live), ready=True)
    cluster.pods = (*cluster.pods, new, replace(new, name="newer", ready=False))
    live["status"] = deployment_status(
        live, updated=2, total=4, available=3, progressing="ReplicaSetUpdated"
    )


def move(cluster: Cluster, number: str) -> None:
    cluster.registry = {role: version(role, number) for role in Role}


def set_version(number: str, **serving_: Any) -> Any:
    """Give an edit that pins the predictor alone."""

    def change(spec: dict[str, Any]) -> None:
        spec["models"] = {"predictor": {"name": "employment", "version": number}}
        spec["serving"].update(serving_)

    return change


# --- brand new -----------------------------------------------------------------------------


def test_a_new_object_is_waited_for_at_every_step() -> None:
    cluster = Cluster()
    seen = []
    for act in (lambda: None, cluster.build, cluster.reconcile, cluster.roll):
        cluster.reconcile()
        assert (kstatus(cluster), kubectl_wait(cluster)) == ("InProgress", False)
        seen.append(cluster.conditions["Ready"])
        act()
    cluster.reconcile()
    assert (kstatus(cluster), kubectl_wait(cluster)) == ("Current", True)
    assert seen[0] == ("False", "WaitingForBuilder")
    assert seen[-1] == ("False", "RollingOut")


def test_a_model_that_the_policy_denies_is_not_deployed_and_nothing_is_told_of_it() -> None:
    allowed = [{"namespaces": ["staging"], "models": ["employment", "employment_d*"]}]
    cluster = Cluster(config=configuration(policy={"models": allowed}))
    cluster.registry[Role.OUTLIER] = MISSING
    cluster.converge()
    assert cluster.conditions["Stalled"] == ("True", "PolicyDenied")
    told = message(cluster.status, "Stalled")
    assert "may not deploy the model 'employment_outlier'" in told
    assert "it may: employment, employment_d*" in told
    assert cluster.images == {}


def test_what_runs_goes_on_when_the_policy_changes() -> None:
    cluster = Cluster()
    cluster.converge()
    before = copy.deepcopy(cluster.children[DEPLOYMENT])
    denying = [{"namespaces": ["other"], "models": ["*"]}]
    cluster.config = configuration(policy={"models": denying})
    cluster.registry = {role: version(role, "2") for role in Role}
    cluster.converge()
    assert cluster.conditions["Stalled"] == ("True", "PolicyDenied")
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.children[DEPLOYMENT] == before


def test_the_companions_are_created_while_the_image_is_built() -> None:
    plan = Cluster().reconcile()
    assert plan.image is not None
    kinds = [child["kind"] for child in plan.apply]
    assert kinds == ["ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget"]


def test_the_status_of_an_object_that_serves() -> None:
    cluster = serving()
    assert cluster.conditions == {
        "Ready": ("True", "Serving"),
        "ModelsResolved": ("True", "Resolved"),
        "ImageReady": ("True", "Built"),
        "Available": ("True", "MinimumReplicasAvailable"),
        "DriftDetected": ("Unknown", "AwaitingTelemetry"),
        "OutliersDetected": ("Unknown", "AwaitingTelemetry"),
        "MonitoringHealthy": ("Unknown", "AwaitingTelemetry"),
        "ServiceHealthy": ("Unknown", "AwaitingTelemetry"),
    }
    told = {
        key: value for key, value in cluster.status.items() if key not in {"conditions", "history"}
    }
    image = next(iter(cluster.images.values()))["status"]["image"]
    assert told == {
        "observedGeneration": 1,
        "models": [
            {
                "role": str(role),
                "name": version(role, "1").name,
                "alias": "candidate",
                "version": "1",
                "runId": f"run-{role}-1",
            }
            for role in Role
        ],
        "image": {"reference": image["reference"], "lock": image["lock"]},
        "runtime": {"version": "0.1.0", "form": "Fast"},
        "revision": revision_of(cluster.children[DEPLOYMENT]),
        "url": "http://employment.staging.svc",
        "replicas": 2,
        "readyReplicas": 2,
        "selector": "modelops.dev/deployment=employment",
    }
    assert message(cluster.status, "Ready").endswith(
        "(employment 1, employment_drift 1, employment_outlier 1) serves"
    )


def test_the_api_understands_every_field_of_the_status() -> None:
    status = serving().status
    read = ModelDeploymentStatus.model_validate(status).model_dump(
        mode="json", exclude_none=True, exclude_defaults=True
    )
    for condition in (*status["conditions"], *read["conditions"]):
        condition.pop("lastTransitionTime")
    assert read == status


def test_the_models_are_told_before_anything_runs() -> None:
    cluster = Cluster()
    cluster.reconcile()
    assert [model["version"] for model in cluster.status["models"]] == ["1", "1", "1"]
    assert "image" not in cluster.status
    assert "revision" not in cluster.status


@pytest.mark.parametrize(
    ("failure", "judgement", "mark"),
    [(MISSING, "Failed", "Stalled"), (SILENT, "InProgress", "Reconciling")],
)
def test_a_new_object_whose_models_are_not_found(
    failure: Failure, judgement: str, mark: str
) -> None:
    cluster = Cluster()
    cluster.registry[Role.DRIFT] = failure
    cluster.converge()
    assert kstatus(cluster) == judgement
    assert cluster.conditions["Ready"] == ("False", failure.reason)
    assert cluster.conditions[mark] == ("True", failure.reason)
    assert cluster.images == {}


# --- following an alias --------------------------------------------------------------------


def test_a_moved_alias_is_rolled_out_while_the_old_version_serves() -> None:
    cluster = serving()
    old = cluster.status["revision"]
    move(cluster, "2")
    cluster.reconcile()
    assert cluster.conditions["Reconciling"] == ("True", "WaitingForBuilder")
    cluster.build()
    cluster.reconcile()
    cluster.reconcile()
    roll_halfway(cluster)
    cluster.reconcile()
    assert cluster.conditions["Reconciling"] == ("True", "RollingOut")
    assert cluster.conditions["Ready"] == ("True", "Serving")
    new = cluster.status["revision"]
    assert (
        message(cluster.status, "Ready")
        == " and ".join(f"revision {revision}" for revision in sorted((old, new))) + " serves"
    )
    cluster.roll()
    cluster.reconcile()
    assert kstatus(cluster) == "Current"
    assert [model["version"] for model in cluster.status["models"]] == ["2", "2", "2"]


def test_a_torn_release_waits_and_says_so() -> None:
    cluster = serving()
    before = copy.deepcopy(cluster.children)
    cluster.registry[Role.DRIFT] = version(Role.DRIFT, "2")
    plan = cluster.reconcile()
    assert cluster.conditions["ModelsResolved"] == ("Unknown", "WaitingForRelease")
    assert plan.requeue_after == timedelta(seconds=10)
    cluster.now += timedelta(seconds=20)
    plan = cluster.reconcile()
    assert cluster.conditions["ModelsResolved"] == ("False", "WaitingForRelease")
    assert cluster.conditions["Reconciling"] == ("True", "WaitingForRelease")
    assert plan.requeue_after is None
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.children == before
    move(cluster, "2")
    cluster.converge()
    assert kstatus(cluster) == "Current"
    assert [model["version"] for model in cluster.status["models"]] == ["2", "2", "2"]


def test_a_failed_build_leaves_what_runs_alone_and_recovers_by_itself() -> None:
    cluster = serving()
    before = copy.deepcopy(cluster.children)
    cluster.broken_builds.add("2")
    move(cluster, "2")
    cluster.converge()
    assert cluster.conditions["Stalled"] == ("True", "RequirementsUnresolvable")
    assert cluster.conditions["ImageReady"] == ("False", "RequirementsUnresolvable")
    assert message(cluster.status, "ImageReady") == "no wheels for pandas==99"
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.children == before
    cluster.broken_builds.clear()
    cluster.converge()
    assert kstatus(cluster) == "Current"
    assert cluster.status["models"][0]["version"] == "2"


def test_an_alias_moved_back_is_an_ordinary_release() -> None:
    cluster = serving()
    first = cluster.status["revision"]
    for number in "21":
        move(cluster, number)
        cluster.converge()
    assert cluster.status["revision"] == first
    assert len(cluster.images) == 2


# --- edits ---------------------------------------------------------------------------------


def test_an_edit_is_waited_for_until_it_is_carried_out() -> None:
    cluster = serving()
    cluster.edit(set_version("2"))
    cluster.registry = {Role.PREDICTOR: version(Role.PREDICTOR, "2")}
    assert (kstatus(cluster), kubectl_wait(cluster)) == ("InProgress", False)
    for act in (cluster.build, lambda: None, lambda: roll_halfway(cluster), lambda: None):
        cluster.reconcile()
        assert (kstatus(cluster), kubectl_wait(cluster)) == ("InProgress", False)
        assert cluster.conditions["Ready"] == ("Unknown", "Progressing")
        act()
    cluster.roll()
    cluster.reconcile()
    assert (kstatus(cluster), kubectl_wait(cluster)) == ("Current", True)


def test_a_broken_edit_fails_at_once_and_what_runs_goes_on() -> None:
    cluster = serving()
    before = copy.deepcopy(cluster.children)
    cluster.edit(set_version("99", resources={"limits": {"memory": "2Gi"}}))
    gone = Failure(reason="VersionNotFound", message="employment has no version 99", permanent=True)
    cluster.registry = {Role.PREDICTOR: gone}
    cluster.reconcile()
    assert kstatus(cluster) == "Failed"
    assert cluster.conditions["Stalled"] == ("True", "VersionNotFound")
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.children == before


def test_one_edit_of_models_and_resources_is_one_rollout() -> None:
    cluster = serving()
    cluster.edit(set_version("2", resources={"limits": {"memory": "2Gi"}}, replicas=3))
    cluster.registry = {Role.PREDICTOR: version(Role.PREDICTOR, "2")}
    cluster.reconcile()
    spec = cluster.children[DEPLOYMENT]["spec"]
    assert spec["replicas"] == 3
    container = spec["template"]["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}}
    cluster.converge()
    container = cluster.children[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"memory": "2Gi"}}


def test_more_memory_is_given_even_while_a_release_fails() -> None:
    cluster = serving()
    cluster.registry[Role.PREDICTOR] = MISSING
    cluster.converge()
    cluster.edit(lambda spec: spec["serving"].update(resources={"limits": {"memory": "2Gi"}}))
    cluster.converge()
    container = cluster.children[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"memory": "2Gi"}}
    assert cluster.status["models"][0]["version"] == "1"


def choose_runtime(cluster: Cluster, runtime: str) -> None:
    cluster.edit(lambda spec: spec["serving"].update(runtime=runtime))


def test_another_runtime_is_rolled_out_and_back_as_another_image_is() -> None:
    cluster = serving()
    assert cluster.status["runtime"] == {"version": "0.1.0", "form": "Fast"}
    first, (auto,) = cluster.status["revision"], cluster.images
    choose_runtime(cluster, "Pyfunc")
    cluster.reconcile()
    assert cluster.conditions["ImageReady"] == ("Unknown", "WaitingForBuilder")
    assert cluster.conditions["Available"][0] == "True"
    assert cluster.status["revision"] == first
    cluster.converge()
    assert cluster.status["runtime"] == {
        "version": "0.1.0",
        "profile": "Pyfunc",
        "form": "Pyfunc",
        "message": "spec.serving.runtime is Pyfunc",
    }
    assert cluster.status["revision"] != first
    choose_runtime(cluster, "Auto")
    cluster.converge()
    assert cluster.status["revision"] == first
    assert len(cluster.images) == 2
    assert cluster.status["image"] == image_of(cluster, auto)


def image_of(cluster: Cluster, name: str) -> dict[str, str]:
    built = cluster.images[name]["status"]["image"]
    return {key: built[key] for key in ("reference", "lock")}


def test_a_model_without_a_fast_form_is_refused_by_fast_and_what_runs_goes_on() -> None:
    cluster = Cluster(plain_versions={"1"})
    cluster.converge()
    assert cluster.status["runtime"] == {
        "version": "0.1.0",
        "form": "Pyfunc",
        "message": "employment 1 has no fast form: register it with modelops_training",
    }
    before = copy.deepcopy(cluster.children)
    choose_runtime(cluster, "Fast")
    cluster.converge()
    assert kstatus(cluster) == "Failed"
    assert cluster.conditions["Stalled"] == ("True", "FastFormMissing")
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.children == before
    choose_runtime(cluster, "Auto")
    cluster.converge()
    assert kstatus(cluster) == "Current"
    assert cluster.children == before


@pytest.mark.parametrize("delete", [True, False])
def test_the_runtime_is_remembered_while_the_registry_is_silent(delete: bool) -> None:  # noqa: FBT001 - a table
    cluster = serving()
    choose_runtime(cluster, "Pyfunc")
    cluster.converge()
    before = revision_of(cluster.children[DEPLOYMENT])
    cluster.registry = dict.fromkeys(Role, SILENT)
    if delete:
        del cluster.children[DEPLOYMENT]
    cluster.converge()
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert revision_of(cluster.children[DEPLOYMENT]) == before
    assert cluster.status["runtime"]["profile"] == "Pyfunc"


def test_pinning_what_an_alias_led_to_restarts_nothing() -> None:
    cluster = serving()
    template = copy.deepcopy(cluster.children[DEPLOYMENT]["spec"])

    def pin(spec: dict[str, Any]) -> None:
        spec["models"]["predictor"] = {"name": "employment", "version": "1"}

    cluster.edit(pin)
    cluster.converge()
    assert cluster.children[DEPLOYMENT]["spec"] == template
    assert "alias" not in cluster.status["models"][0]
    assert len(cluster.images) == 1


def test_scaling_changes_the_number_of_pods_and_nothing_else() -> None:
    cluster = serving()
    template = copy.deepcopy(cluster.children[DEPLOYMENT]["spec"]["template"])
    cluster.edit(lambda spec: spec["serving"].update(replicas=5))
    cluster.converge()
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 5
    assert cluster.children[DEPLOYMENT]["spec"]["template"] == template
    assert cluster.status["replicas"] == 5


def test_zero_replicas_are_as_asked_for() -> None:
    cluster = serving()
    cluster.edit(lambda spec: spec["serving"].update(replicas=0))
    cluster.converge()
    assert (kstatus(cluster), kubectl_wait(cluster)) == ("Current", True)
    assert cluster.conditions["Ready"] == ("True", "ScaledToZero")
    assert (cluster.status["replicas"], cluster.status["readyReplicas"]) == (0, 0)


def test_a_detector_that_is_taken_out_leaves_the_release() -> None:
    cluster = serving()
    cluster.edit(lambda spec: spec["models"].pop("drift"))
    cluster.converge()
    assert [model["role"] for model in cluster.status["models"]] == ["predictor", "outlier"]
    assert cluster.conditions["DriftDetected"] == ("Unknown", "NoDetector")


# --- pods ----------------------------------------------------------------------------------


def test_a_crashing_new_version_stalls_while_the_old_one_serves() -> None:
    cluster = serving()
    cluster.broken_versions.add("2")
    move(cluster, "2")
    cluster.converge()
    assert kstatus(cluster) == "Failed"
    assert cluster.conditions["Available"] == ("False", "PodsCrashing")
    told = message(cluster.status, "Stalled")
    assert "exited with code 1" in told
    assert "boom" in told
    assert cluster.conditions["Ready"] == ("True", "Serving")
    move(cluster, "1")
    cluster.converge()
    assert kstatus(cluster) == "Current"


def test_a_crashing_first_version_is_not_ready() -> None:
    cluster = Cluster()
    cluster.broken_versions.add("1")
    cluster.converge()
    assert cluster.conditions["Ready"] == ("False", "PodsCrashing")
    assert "boom" in message(cluster.status, "Ready")


def test_a_lost_pod_is_no_edit() -> None:
    cluster = serving()
    live = cluster.children[DEPLOYMENT]
    live["status"] |= {"availableReplicas": 1, "readyReplicas": 1}
    cluster.reconcile()
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.conditions["Available"] == ("False", "Scaling")
    assert kstatus(cluster) == "InProgress"


# --- children ------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", sorted(CHILDREN))
@pytest.mark.parametrize("failure", [None, SILENT, MISSING])
def test_a_deleted_child_comes_back_whatever_the_registry_says(
    ref: ChildRef, failure: Failure | None
) -> None:
    cluster = serving()
    before = copy.deepcopy(cluster.children[ref])
    del cluster.children[ref]
    if failure is not None:
        cluster.registry = dict.fromkeys(Role, failure)
    cluster.converge()
    assert cluster.children[ref] == before


def test_a_child_that_is_being_deleted_is_left_until_it_is_gone() -> None:
    cluster = serving()
    cluster.children[DEPLOYMENT]["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    cluster.children[DEPLOYMENT]["spec"]["replicas"] = 9
    plan = cluster.reconcile()
    assert plan.apply == ()
    assert cluster.conditions["Reconciling"] == ("True", "Progressing")
    del cluster.children[DEPLOYMENT]
    cluster.converge()
    assert kstatus(cluster) == "Current"


@pytest.mark.parametrize("ref", sorted(CHILDREN))
def test_an_object_of_somebody_else_is_never_touched(ref: ChildRef) -> None:
    cluster = Cluster()
    theirs = {
        "kind": ref.kind,
        "metadata": {"name": ref.name, "labels": {"by": "hand"}},
        "spec": {},
    }
    cluster.children[ref] = copy.deepcopy(theirs)
    cluster.reconcile()
    cluster.build()
    plan = cluster.reconcile()
    assert cluster.children == {ref: theirs}
    assert cluster.conditions["Stalled"] == ("True", "NameCollision")
    assert f"{ref.kind} employment" in message(cluster.status, "Stalled")
    assert plan.requeue_after == timedelta(seconds=30)
    del cluster.children[ref]
    cluster.converge()
    assert kstatus(cluster) == "Current"


def test_children_of_a_deleted_object_of_the_same_name_are_waited_for() -> None:
    cluster = serving()
    cluster.object["metadata"]["uid"] = "uid-2"
    cluster.object["status"] = {"observedGeneration": -1}
    plan = cluster.reconcile()
    assert plan.apply == ()
    assert "Stalled" not in cluster.conditions
    assert cluster.conditions["Ready"][0] == "False"
    assert "revision" not in cluster.status
    cluster.children.clear()
    cluster.converge()
    owners = {child["metadata"]["ownerReferences"][0]["uid"] for child in cluster.children.values()}
    assert owners == {"uid-2"}


def test_a_child_that_is_not_wanted_any_more_is_deleted() -> None:
    cluster = serving()
    owner = cluster.children[SERVICE]["metadata"]["ownerReferences"]
    ours = ChildRef("ConfigMap", "employment")
    theirs = ChildRef("ConfigMap", "other")
    cluster.children[ours] = {"metadata": {"name": "employment", "ownerReferences": owner}}
    cluster.children[theirs] = {"metadata": {"name": "other"}}
    assert cluster.decide().delete == (ours,)


@pytest.mark.parametrize(("permanent", "mark"), [(True, "Stalled"), (False, "Reconciling")])
def test_a_refused_child_is_told_and_tried_again(permanent: bool, mark: str) -> None:  # noqa: FBT001 - a table
    cluster = serving()
    del cluster.children[SERVICE]
    failure = Failure(reason="AdmissionRefused", message="policy x", permanent=permanent)
    cluster.write_failures[SERVICE] = failure
    plan = cluster.decide()
    assert [child["kind"] for child in plan.apply] == ["Service"]
    cluster.reconcile()
    assert cluster.conditions[mark] == ("True", "AdmissionRefused")
    assert message(cluster.status, mark) == "Service employment cannot be written: policy x"


def test_a_refusal_of_the_past_is_not_told() -> None:
    cluster = serving()
    cluster.write_failures[SERVICE] = replace(MISSING, reason="Forbidden")
    cluster.converge()
    assert kstatus(cluster) == "Current"


# --- operator upgrades and wishes ----------------------------------------------------------


def test_an_upgrade_of_the_operator_restarts_nothing() -> None:
    cluster = serving()
    before = copy.deepcopy(cluster.children)
    base = "registry.example:5000/modelops/base@sha256:" + "d" * 64
    cluster.config = configuration(runtime={"version": "0.2.0"}, builder={"bases": {"3.11": base}})
    cluster.images.clear()
    cluster.converge()
    assert cluster.children == before
    assert cluster.status["runtime"]["version"] == "0.1.0"
    move(cluster, "2")
    cluster.converge()
    assert cluster.status["runtime"]["version"] == "0.2.0"


def test_a_new_base_image_is_taken_when_configured_so_and_once() -> None:
    cluster = serving()
    old = cluster.status["revision"]
    base = f"registry.example:5000/base@sha256:{'b' * 64}"
    cluster.config = configuration(builder={"bases": {"3.11": base}})
    cluster.converge()
    assert cluster.status["revision"] == old
    cluster.config = configuration(builder={"bases": {"3.11": base}, "rebase": "Automatic"})
    cluster.converge()
    assert cluster.status["revision"] != old
    assert [image["spec"]["base"] for image in cluster.images.values()] == [BASE, base]
    rebased = copy.deepcopy(cluster.children)
    cluster.converge()
    assert cluster.children == rebased
    # Whose ModelImage is gone, nobody knows the base of: it stays.
    cluster.images.clear()
    cluster.config = configuration(builder={"bases": {"3.11": BASE}, "rebase": "Automatic"})
    cluster.converge()
    assert cluster.children == rebased


def test_a_wish_to_rebuild_is_granted_once() -> None:
    cluster = serving()
    cluster.config = configuration(runtime={"version": "0.2.0"})
    old = cluster.status["revision"]
    cluster.annotate("modelops.dev/rebuild", "monday")
    cluster.reconcile()
    assert "handledRequests" not in cluster.status
    cluster.converge()
    assert cluster.status["handledRequests"] == {"rebuild": "monday"}
    assert cluster.status["runtime"]["version"] == "0.2.0"
    assert cluster.status["revision"] != old
    rebuilt = copy.deepcopy(cluster.children)
    cluster.object["metadata"]["annotations"] = {}
    cluster.converge()
    cluster.annotate("modelops.dev/rebuild", "monday")
    cluster.converge()
    assert cluster.children == rebuilt
    assert len(cluster.images) == 2
    move(cluster, "2")
    cluster.converge()
    assert [image["spec"].get("rebuild") for image in cluster.images.values()] == [
        None,
        "monday",
        None,
    ]


def test_a_wish_to_reconcile_is_remembered() -> None:
    cluster = serving()
    cluster.annotate("modelops.dev/reconcile", "now")
    cluster.reconcile()
    assert cluster.status["handledRequests"] == {"reconcile": "now"}
    cluster.object["metadata"]["annotations"] = {}
    cluster.converge()
    assert cluster.status["handledRequests"] == {"reconcile": "now"}


def test_without_a_base_image_nothing_new_is_built_and_what_runs_goes_on() -> None:
    cluster = serving()
    cluster.config = configuration(builder={})
    cluster.converge()
    assert kstatus(cluster) == "Current"
    move(cluster, "2")
    cluster.converge()
    assert cluster.conditions["Stalled"] == ("True", "BaseImageNotFound")
    assert cluster.conditions["Ready"] == ("True", "Serving")


# --- suspended, not understood, on its way out ---------------------------------------------


def test_a_suspended_object_is_looked_at_and_not_touched() -> None:
    cluster = serving()
    cluster.edit(lambda spec: spec.update(suspend=True))
    move(cluster, "2")
    del cluster.children[SERVICE]
    cluster.annotate("modelops.dev/reconcile", "now")
    plan = cluster.reconcile()
    assert (plan.image, plan.apply, plan.delete) == (None, (), ())
    assert cluster.conditions["Ready"] == ("True", "Suspended")
    assert cluster.conditions["ModelsResolved"] == ("Unknown", "Suspended")
    assert cluster.conditions["Available"] == ("True", "MinimumReplicasAvailable")
    assert "handledRequests" not in cluster.status
    assert kstatus(cluster) == "Current"
    assert cluster.status["models"][0]["version"] == "1"
    cluster.edit(lambda spec: spec.pop("suspend"))
    cluster.converge()
    assert cluster.status["models"][0]["version"] == "2"
    assert SERVICE in cluster.children


def test_an_object_suspended_from_the_start_does_not_serve() -> None:
    cluster = Cluster()
    cluster.edit(lambda spec: spec.update(suspend=True))
    cluster.converge()
    assert cluster.conditions["Ready"] == ("False", "Suspended")
    assert cluster.children == {}


def refuse(cluster: Cluster, **spec: Any) -> Plan:
    cluster.object["spec"] |= spec
    cluster.object["metadata"]["generation"] += 1
    with pytest.raises(ValidationError) as caught:
        ModelDeployment.model_validate(cluster.object)
    return invalid(
        cluster.object["metadata"],
        cluster.status,
        caught.value,
        cluster.observe(),
        now=cluster.now,
    )


def test_a_spec_that_is_not_understood_stalls_and_what_runs_goes_on() -> None:
    cluster = serving()
    plan = refuse(cluster, colour="blue")
    assert (plan.image, plan.apply, plan.delete) == (None, (), ())
    cluster.object["status"] = dict(plan.status)
    assert kstatus(cluster) == "Failed"
    assert cluster.conditions["Stalled"] == ("True", "InvalidSpec")
    assert "spec.colour" in message(cluster.status, "Stalled")
    assert cluster.conditions["Ready"] == ("True", "InvalidSpec")
    assert cluster.status["models"][0]["version"] == "1"
    assert [event.reason for event in plan.events] == ["InvalidSpec"]
    again = refuse(cluster)
    assert again.events == ()


def test_a_first_spec_that_is_not_understood_is_not_ready() -> None:
    cluster = Cluster()
    cluster.object["status"] = dict(refuse(cluster, colour="blue").status)
    assert cluster.conditions["Ready"] == ("False", "InvalidSpec")
    assert cluster.status["observedGeneration"] == 2


def test_an_object_on_its_way_out_is_left_alone() -> None:
    cluster = serving()
    cluster.object["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    cluster.children.clear()
    assert cluster.decide() == Plan(status=cluster.status)
    assert refuse(cluster, colour="blue") == Plan(status=cluster.status)


# --- events and verdicts -------------------------------------------------------------------


def test_a_first_release_is_told_in_few_events() -> None:
    cluster = Cluster()
    cluster.converge()
    assert [(event.type, event.reason) for event in cluster.events] == [
        ("Normal", "Resolved"),
        ("Normal", "Built"),
        ("Normal", "RevisionChanged"),
        ("Normal", "Serving"),
    ]


def test_a_failure_that_goes_on_is_told_once() -> None:
    cluster = serving()
    cluster.registry[Role.DRIFT] = MISSING
    for _ in range(5):
        cluster.reconcile()
    assert [(event.type, event.reason) for event in cluster.events] == [
        ("Warning", "AliasNotFound")
    ]


def test_a_silent_registry_causes_no_events_and_one_write() -> None:
    cluster = serving()
    cluster.registry = dict.fromkeys(Role, SILENT)
    cluster.reconcile()
    assert cluster.decide().status == cluster.status
    assert cluster.events == []
    assert kstatus(cluster) == "Current"
    assert cluster.conditions["ModelsResolved"] == ("Unknown", "ModelRegistryUnreachable")


def test_verdicts_do_not_touch_ready() -> None:
    cluster = serving()
    cluster.health = Health.of(evidence={})
    cluster.converge()
    assert kstatus(cluster) == "Current"


def test_an_image_built_by_another_deployment_is_shared() -> None:
    cluster = Cluster()
    cluster.reconcile()
    (image,) = cluster.images.values()
    other = Cluster(images={image["metadata"]["name"]: {**image, "status": finished_build(image)}})
    plan = other.reconcile()
    assert plan.image is None
    assert "Deployment" in [child["kind"] for child in plan.apply]
