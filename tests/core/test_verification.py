"""What is rolled out where images must be signed, and what the status says of it."""

import copy
from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.api.facts import Failure, Role, Signed

from tests.core.simulation import (
    DEPLOYMENT,
    Cluster,
    configuration,
    message,
    version,
)

pytestmark = pytest.mark.unit

ENFORCED = configuration(verification={"mode": "Enforce", "keys": "/cosign.pub"})
SIGNED = Signed(key="sha256:" + "f" * 64)
MISSING = Failure(reason="SignatureMissing", message="nobody has signed it", permanent=True)
UNTRUSTED = Failure(reason="SignatureUntrusted", message="by no trusted key", permanent=True)
SILENT = Failure(reason="ImageRegistryUnreachable", message="no answer", permanent=False)
DENIED = Failure(reason="ImageRegistryDenied", message="401", permanent=True)


def built() -> tuple[Cluster, str]:
    """Give a new object whose image is there, and the image."""
    cluster = Cluster(config=ENFORCED)
    cluster.reconcile()
    cluster.build()
    (reference,) = cluster.versions_by_reference
    return cluster, reference


def serving() -> tuple[Cluster, str]:
    """Give a cluster in which a signed image of version 1 serves."""
    cluster, reference = built()
    cluster.signatures[reference] = SIGNED
    cluster.converge()
    cluster.events.clear()
    return cluster, reference


def moved() -> tuple[Cluster, str, str]:
    """Let the aliases of a serving cluster move; give the images of versions 1 and 2."""
    cluster, old = serving()
    cluster.registry = {role: version(role, "2") for role in Role}
    cluster.reconcile()
    cluster.build()
    (new,) = cluster.versions_by_reference.keys() - {old}
    return cluster, old, new


def image_of(cluster: Cluster) -> Any:
    live = cluster.children[DEPLOYMENT]
    return live["spec"]["template"]["spec"]["containers"][0]["image"]


def test_before_there_is_an_image_its_signature_is_waited_for() -> None:
    cluster = Cluster(config=ENFORCED)
    plan = cluster.reconcile()
    assert plan.verify == ()
    assert cluster.conditions["ImageVerified"] == ("Unknown", "WaitingForImage")
    assert cluster.conditions["Ready"] == ("False", "WaitingForBuilder")


def test_a_built_image_is_asked_for_and_not_rolled_out_before_the_answer() -> None:
    cluster, reference = built()
    plan = cluster.reconcile()
    assert plan.verify == (reference,)
    assert DEPLOYMENT not in cluster.children
    assert cluster.conditions["ImageReady"] == ("True", "Built")
    assert cluster.conditions["ImageVerified"] == ("Unknown", "Verifying")
    assert cluster.conditions["Reconciling"] == ("True", "Verifying")
    cluster.signatures[reference] = SIGNED
    plan = cluster.reconcile()
    assert plan.verify == ()
    assert image_of(cluster) == reference
    assert cluster.conditions["ImageVerified"] == ("True", "SignatureVerified")
    told = message(cluster.status, "ImageVerified")
    assert told == f"{reference} is signed by the key {SIGNED.key}"


@pytest.mark.parametrize(
    ("answer", "status", "abnormal"),
    [
        (MISSING, "False", "Stalled"),
        (UNTRUSTED, "False", "Stalled"),
        (SILENT, "Unknown", "Reconciling"),
        (DENIED, "Unknown", "Stalled"),
    ],
)
def test_what_is_not_verified_never_starts(answer: Failure, status: str, abnormal: str) -> None:
    cluster, reference = built()
    cluster.signatures[reference] = answer
    plan = cluster.reconcile()
    assert DEPLOYMENT not in cluster.children
    assert cluster.conditions["ImageVerified"] == (status, answer.reason)
    assert cluster.conditions[abnormal] == ("True", answer.reason)
    assert cluster.conditions["Ready"] == ("False", answer.reason)
    assert message(cluster.status, "ImageVerified") == f"not rolled out: {answer.message}"
    # Nobody tells when it is signed after all, so it is asked for again.
    assert plan.verify == (reference,)
    assert plan.requeue_after is not None
    assert plan.requeue_after <= timedelta(minutes=1)


@pytest.mark.parametrize("answer", [None, MISSING, UNTRUSTED, SILENT, DENIED])
def test_what_runs_goes_on_running_until_the_new_one_is_verified(answer: Failure | None) -> None:
    cluster, old, new = moved()
    if answer is not None:
        cluster.signatures[new] = answer
    before = copy.deepcopy(cluster.children)
    plan = cluster.reconcile()
    assert plan.verify == (new,)
    assert cluster.children == before
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert cluster.status["image"]["reference"] == old
    cluster.signatures[new] = SIGNED
    cluster.converge()
    assert image_of(cluster) == new
    assert cluster.conditions["ImageVerified"] == ("True", "SignatureVerified")


def test_an_edit_waits_as_a_whole_for_the_signature() -> None:
    cluster, _, new = moved()
    cluster.signatures[new] = MISSING
    before = copy.deepcopy(cluster.children[DEPLOYMENT])

    def change(spec: dict[str, Any]) -> None:
        spec["models"] = {
            str(role): {"name": version(role, "2").name, "version": "2"} for role in Role
        }
        spec["serving"]["resources"] = {"requests": {"cpu": "2"}}

    cluster.edit(change)
    cluster.reconcile()
    cluster.build()
    cluster.signatures = dict.fromkeys(cluster.versions_by_reference, MISSING)
    cluster.reconcile()
    assert cluster.children[DEPLOYMENT]["spec"]["template"] == before["spec"]["template"]


@pytest.mark.parametrize("answer", [MISSING, UNTRUSTED, SILENT])
def test_a_running_image_that_is_not_verified_is_told_of_and_left_alone(answer: Failure) -> None:
    cluster = Cluster()
    cluster.converge()
    cluster.config = ENFORCED
    before = copy.deepcopy(cluster.children)
    plan = cluster.reconcile()
    assert cluster.conditions["ImageVerified"] == ("Unknown", "Verifying")
    cluster.signatures = dict.fromkeys(plan.verify, answer)
    cluster.converge()
    assert cluster.children == before
    status = "Unknown" if answer is SILENT else "False"
    assert cluster.conditions["ImageVerified"] == (status, answer.reason)
    assert cluster.conditions["Ready"] == ("True", "Serving")
    assert not cluster.conditions.keys() & {"Stalled", "Reconciling"}
    assert message(cluster.status, "ImageVerified") == (f"it goes on running, but {answer.message}")
    warned = [event for event in cluster.events if event.reason == answer.reason]
    assert [event.type for event in warned] == ([] if answer is SILENT else ["Warning"])


def test_a_running_image_that_is_not_verified_can_be_scaled() -> None:
    cluster, reference = serving()
    cluster.signatures[reference] = UNTRUSTED
    cluster.edit(lambda spec: spec["serving"].update(replicas=5))
    cluster.converge()
    assert cluster.children[DEPLOYMENT]["spec"]["replicas"] == 5


def test_an_operator_that_starts_anew_writes_nothing() -> None:
    cluster, reference = serving()
    cluster.signatures.clear()
    plan = cluster.decide()
    assert plan.verify == (reference,)
    assert plan.apply == ()
    assert plan.status == cluster.status


def test_a_deployment_that_was_deleted_comes_back_only_with_a_signed_image() -> None:
    """Who may write the status, and no Deployments, must not bring in an image."""
    cluster, reference = serving()
    cluster.signatures.clear()
    del cluster.children[DEPLOYMENT]
    forged = reference.replace("@sha256:", "@sha256:0")[:-1]
    cluster.object["status"]["image"]["reference"] = forged
    plan = cluster.reconcile()
    assert plan.verify
    assert DEPLOYMENT not in cluster.children
    cluster.signatures = {forged: UNTRUSTED, reference: SIGNED}
    cluster.reconcile()
    assert DEPLOYMENT not in cluster.children


def test_where_nothing_is_to_be_verified_nothing_is_said() -> None:
    cluster, _ = serving()
    cluster.config = configuration()
    plan = cluster.reconcile()
    assert plan.verify == ()
    assert "ImageVerified" not in cluster.conditions


def test_a_suspended_object_does_not_look() -> None:
    cluster, _ = serving()
    cluster.edit(lambda spec: spec.update(suspend=True))
    plan = cluster.reconcile()
    assert plan.verify == ()
    assert cluster.conditions["ImageVerified"] == ("Unknown", "Suspended")
