"""The audit trail: who asked for a revision, when, and what became of it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.api.conditions import timestamp
from modelops_operator.api.config import RuntimeConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import ModelDeploymentStatus

from tests.core.simulation import START, Cluster, version

pytestmark = pytest.mark.unit

MODELS: Mapping[str, Any] = {"f:spec": {"f:models": {"f:predictor": {}}}}


def asked(manager: str, fields: Mapping[str, Any], minute: int = 0, **more: str) -> dict[str, Any]:
    time = timestamp(START + timedelta(minutes=minute))
    return {"manager": manager, "time": time, "fieldsV1": fields, **more}


def annotation(name: str) -> dict[str, Any]:
    return {"f:metadata": {"f:annotations": {f"f:modelops.dev/{name}": {}}}}


def history(cluster: Cluster) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = cluster.status.get("history", [])
    return told


def move(cluster: Cluster, number: str) -> None:
    cluster.registry = {role: version(role, number) for role in Role}
    cluster.converge()


def pin(cluster: Cluster, number: str) -> None:
    models = {"predictor": {"name": "employment", "version": number}}
    cluster.edit(lambda spec: spec.update(models=models))
    cluster.registry = {Role.PREDICTOR: version(Role.PREDICTOR, number)}


@pytest.fixture
def cluster() -> Cluster:
    """Give a deployment that serves its first revision."""
    cluster = Cluster()
    cluster.object["metadata"]["managedFields"] = [
        asked("argocd-controller", MODELS, 1),
        asked("kubectl-edit", {"f:spec": {"f:serving": {"f:replicas": {}}}}, 2),
        asked("kubectl-scale", MODELS, 3, subresource="scale"),
    ]
    cluster.converge()
    return cluster


def test_the_first_revision(cluster: Cluster) -> None:
    (only,) = history(cluster)
    assert only["number"] == 1
    assert only["revision"] == cluster.status["revision"]
    assert [model["version"] for model in only["models"]] == ["1", "1", "1"]
    assert cluster.status["image"]["reference"].endswith(f"@{only['image']}")
    assert (only["cause"], only["requestedBy"]) == ("Edit", "argocd-controller")
    assert only["outcome"] == "Succeeded"
    assert only["startedAt"] <= only["finishedAt"]


def test_before_the_first_revision_there_is_none() -> None:
    cluster = Cluster()
    cluster.reconcile()
    assert history(cluster) == []


def test_a_moved_alias_was_asked_for_by_the_registry(cluster: Cluster) -> None:
    move(cluster, "2")
    newest, first = history(cluster)
    assert (newest["number"], first["number"]) == (2, 1)
    assert (newest["cause"], newest["requestedBy"]) == ("AliasMoved", "model registry")
    assert newest["models"][0]["version"] == "2"


def test_an_edit_was_asked_for_by_who_wrote_the_models_last(cluster: Cluster) -> None:
    cluster.object["metadata"]["managedFields"].append(asked("kubectl", MODELS, 9))
    pin(cluster, "1")
    cluster.converge()
    assert (history(cluster)[0]["cause"], history(cluster)[0]["requestedBy"]) == ("Edit", "kubectl")


def test_another_runtime_is_an_edit(cluster: Cluster) -> None:
    fields: dict[str, Any] = {"f:spec": {"f:serving": {"f:runtime": {}}}}
    cluster.object["metadata"]["managedFields"].append(asked("flux", fields, 9))
    cluster.edit(lambda spec: spec["serving"].update(runtime="Pyfunc"))
    cluster.converge()
    newest = history(cluster)[0]
    assert (newest["cause"], newest["requestedBy"], newest["profile"]) == ("Edit", "flux", "Pyfunc")


def test_a_rebuild_and_an_update_were_asked_for_by_who_set_the_annotation(cluster: Cluster) -> None:
    fields = cluster.object["metadata"]["managedFields"]
    fields.append(asked("modelops-cli", annotation("rebuild"), 4))
    cluster.annotate("modelops.dev/rebuild", "1")
    cluster.converge()
    newest = history(cluster)[0]
    assert (newest["cause"], newest["requestedBy"]) == ("Rebuild", "modelops-cli")
    cluster.config = cluster.config.model_copy(update={"runtime": RuntimeConfig(version="0.2.0")})
    cluster.annotate("modelops.dev/update", "1")
    cluster.converge()
    newest = history(cluster)[0]
    assert (newest["cause"], newest["requestedBy"]) == ("Update", "modelops-operator")


def test_a_revision_whose_pods_crash_has_failed_and_may_recover(cluster: Cluster) -> None:
    cluster.broken_versions.add("2")
    move(cluster, "2")
    newest = history(cluster)[0]
    assert newest["outcome"] == "Failed"
    assert newest["message"].startswith("PodsCrashing: pod c0 exited with code 1")
    since = newest["finishedAt"]
    cluster.now += timedelta(minutes=5)
    cluster.converge()
    assert history(cluster)[0]["finishedAt"] == since
    cluster.broken_versions.clear()
    cluster.converge()
    newest = history(cluster)[0]
    assert newest["outcome"] == "Succeeded"
    assert "message" not in newest


def test_what_has_once_served_is_a_success_whatever_comes_later(cluster: Cluster) -> None:
    cluster.broken_versions.add("1")
    cluster.pods = ()
    cluster.converge()
    assert cluster.conditions["Stalled"] == ("True", "PodsCrashing")
    assert history(cluster)[0]["outcome"] == "Succeeded"


def test_a_revision_that_is_overtaken_is_superseded(cluster: Cluster) -> None:
    cluster.registry = {role: version(role, "2") for role in Role}
    cluster.reconcile()
    cluster.build()
    cluster.reconcile()
    cluster.reconcile()
    assert history(cluster)[0]["outcome"] == "Progressing"
    move(cluster, "3")
    assert [entry["outcome"] for entry in history(cluster)] == [
        "Succeeded",
        "Superseded",
        "Succeeded",
    ]


def test_a_revision_that_comes_back_is_told_again(cluster: Cluster) -> None:
    move(cluster, "2")
    move(cluster, "1")
    assert [entry["models"][0]["version"] for entry in history(cluster)] == ["1", "2", "1"]


def test_the_last_ten_are_kept(cluster: Cluster) -> None:
    for number in range(2, 15):
        move(cluster, str(number))
    assert [entry["number"] for entry in history(cluster)] == list(range(14, 4, -1))
    read = ModelDeploymentStatus.model_validate(cluster.status)
    assert read.to_manifest()["history"] == history(cluster)


@pytest.mark.parametrize("suspend", [True, False])
def test_nothing_is_forgotten_while_nothing_is_done(cluster: Cluster, suspend: bool) -> None:  # noqa: FBT001 - a table
    before = history(cluster)
    if suspend:
        cluster.edit(lambda spec: spec.update(suspend=True))
    else:
        cluster.children.clear()
    cluster.reconcile()
    assert history(cluster) == before
