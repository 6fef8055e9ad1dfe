"""Whether the pods serve what they should, read as `kubectl rollout status` reads a Deployment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.facts import Failure, Pod
from modelops_operator.api.reasons import Reason
from modelops_operator.core.findings import Finding, Outlook, bounded, count
from modelops_operator.core.pod_template import REVISION_LABEL
from modelops_operator.core.pods import worst_trouble
from modelops_operator.core.state import ChildRef, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The state of a Deployment that is ours; all zero while there is none."""

    wanted: int = 0
    updated: int = 0
    total: int = 0
    """Of any revision, without those that are terminating."""
    available: int = 0
    ready: int = 0
    revision: str = ""
    """What the pod template says."""
    seen: bool = False
    """The Deployment controller has acted on the newest spec, so that the numbers speak of it."""
    conditions: Mapping[str, Mapping[str, Any]]
    """The Deployment's own, by type."""

    @classmethod
    def of(cls, live: Manifest | None) -> "Rollout":
        """Read a live Deployment."""
        if live is None:
            return cls(conditions={})
        status = live.get("status") or {}
        labels = live["spec"]["template"]["metadata"].get("labels") or {}
        return cls(
            wanted=live["spec"].get("replicas", 1),
            updated=status.get("updatedReplicas") or 0,
            total=status.get("replicas") or 0,
            available=status.get("availableReplicas") or 0,
            ready=status.get("readyReplicas") or 0,
            revision=labels.get(REVISION_LABEL, ""),
            seen=status.get("observedGeneration", -1) >= live["metadata"].get("generation", 0),
            conditions={condition["type"]: condition for condition in status.get("conditions", ())},
        )

    @property
    def complete(self) -> bool:
        """All wanted replicas are available in the newest revision, and no others are left."""
        return self.seen and self.wanted == self.updated == self.total == self.available

    @property
    def parked(self) -> bool:
        """No replicas are wanted, and none are there."""
        return self.complete and self.wanted == 0

    @property
    def overdue(self) -> bool:
        """The Deployment controller has given up waiting for progress."""
        return self.conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded"

    @property
    def finished_before(self) -> bool:
        """The newest revision has been complete at some time: what is missing now, was lost."""
        return self.conditions.get("Progressing", {}).get("reason") == "NewReplicaSetAvailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What the checks look at."""

    rollout: Rollout
    exists: bool
    """There is a Deployment, and it is ours."""
    applying: bool
    """It is written in this very pass: its numbers speak of what was before."""
    pods: tuple[Pod, ...] = ()
    collisions: tuple[ChildRef, ...] = ()
    """Objects of others under the names of our children."""
    leaving: tuple[ChildRef, ...] = ()
    """Objects under the names of our children that are being deleted."""
    refusals: Mapping[ChildRef, Failure]
    """What the API server said to our last attempt at writing them."""


def availability(deployed: Deployed) -> Finding:
    """Go through the checks; the first that has something to say is heard."""
    for check in CHECKS:
        finding = check(deployed)
        if finding is not None:
            return finding
    return _progress(deployed.rollout)


def _collision(deployed: Deployed) -> Finding | None:
    if not deployed.collisions:
        return None
    names = ", ".join(f"{ref.kind} {ref.name}" for ref in deployed.collisions)
    message = (
        f"{names} exists and does not belong to this ModelDeployment. It is left alone: delete or"
        " rename it, or give the ModelDeployment another name"
    )
    return _finding("False", Reason.NAME_COLLISION, message, Outlook.STUCK)


def _refusal(deployed: Deployed) -> Finding | None:
    """Tell what is refused; the pods that serve all the same are no less available for it."""
    if not deployed.refusals:
        return None
    refusals = sorted(deployed.refusals.items(), key=lambda item: (not item[1].permanent, item[0]))
    ref, failure = refusals[0]
    outlook = Outlook.STUCK if failure.permanent else Outlook.UNDERWAY
    message = f"{ref.kind} {ref.name} cannot be written: {failure.message}"
    refused, serving = _finding("False", failure.reason, message, outlook), _complete(deployed)
    if serving is None:
        return refused
    return Finding(condition=serving.condition, outlook=outlook, cause=refused.condition)


def _leaving(deployed: Deployed) -> Finding | None:
    if not deployed.leaving:
        return None
    names = ", ".join(f"{ref.kind} {ref.name}" for ref in deployed.leaving)
    message = f"{names} is being deleted; it is written again when it is gone"
    return _finding("Unknown", Reason.PROGRESSING, message, Outlook.UNDERWAY)


def _absent(deployed: Deployed) -> Finding | None:
    if deployed.exists:
        return None
    message = "the Deployment is being created" if deployed.applying else "there are no pods yet"
    return _finding("False", Reason.NOT_DEPLOYED, message, Outlook.UNDERWAY)


def _unseen(deployed: Deployed) -> Finding | None:
    """Numbers of an older spec must not pass for numbers of this one."""
    if deployed.rollout.seen and not deployed.applying:
        return None
    message = "the Deployment was changed; its pods follow"
    return _finding("Unknown", Reason.ROLLING_OUT, message, Outlook.UNDERWAY)


def _complete(deployed: Deployed) -> Finding | None:
    rollout = deployed.rollout
    if not rollout.complete:
        return None
    if rollout.wanted == 0:
        message = "spec.serving.replicas is 0: there are no pods"
        return _finding("True", Reason.SCALED_TO_ZERO, message, Outlook.SETTLED)
    message = f"{count(rollout.available, 'replica')} of revision {rollout.revision} available"
    return _finding("True", Reason.MINIMUM_REPLICAS_AVAILABLE, message, Outlook.SETTLED)


def _pods_refused(deployed: Deployed) -> Finding | None:
    """Quota or admission keeps the Deployment from making pods."""
    failure = deployed.rollout.conditions.get("ReplicaFailure", {})
    if failure.get("status") != "True":
        return None
    said = failure.get("message") or "no further word"
    if "quota" in said or "usage per" in said:
        message = (
            f"the pods are refused: {said}. Raise the quota or lower spec.serving.replicas or"
            " resources; a rollout needs room for as many new pods as there are old ones"
        )
        return _finding("False", Reason.QUOTA_EXCEEDED, message, Outlook.STUCK)
    # A ServiceAccount made a moment ago may not have reached the admission plugin yet.
    if ("forbidden" in said and "looking up service account" not in said) or "denied" in said:
        message = f"the pods are refused: {said}"
        return _finding("False", Reason.ADMISSION_REFUSED, message, Outlook.STUCK)
    message = f"the pods cannot be created: {said}"
    return _finding("False", Reason.CHILD_REFUSED, message, _patience(deployed.rollout))


def _pods_in_trouble(deployed: Deployed) -> Finding | None:
    trouble = worst_trouble(deployed.pods, revision=deployed.rollout.revision)
    if trouble is None:
        return None
    outlook = Outlook.STUCK if trouble.stuck else _patience(deployed.rollout)
    return _finding("False", trouble.reason, trouble.message, outlook)


def _overdue(deployed: Deployed) -> Finding | None:
    if not deployed.rollout.overdue:
        return None
    message = (
        f"the pods of revision {deployed.rollout.revision} run and do not become ready:"
        " `kubectl logs` and `kubectl describe pod` of them tell why"
    )
    return _finding("False", Reason.NOT_READY, message, Outlook.STUCK)


Check = Callable[[Deployed], Finding | None]

CHECKS: tuple[Check, ...] = (
    _collision,  # nothing else can be trusted while another's object bears our name
    _refusal,
    _leaving,
    _absent,
    _unseen,
    _complete,  # before all that looks for trouble: old failures outlive their cause
    _pods_refused,
    _pods_in_trouble,
    _overdue,
)


def _progress(rollout: Rollout) -> Finding:
    message = (
        f"{rollout.updated} of {count(rollout.wanted, 'replica')} run revision {rollout.revision},"
        f" {rollout.available} of {rollout.total} available"
    )
    if rollout.available == 0:
        return _finding("False", Reason.PODS_STARTING, message, Outlook.UNDERWAY)
    if rollout.finished_before:
        return _finding("False", Reason.SCALING, message, Outlook.UNDERWAY)
    return _finding("Unknown", Reason.ROLLING_OUT, message, Outlook.UNDERWAY)


def _patience(rollout: Rollout) -> Outlook:
    """Wait as long as the Deployment controller does for what may pass by itself."""
    return Outlook.STUCK if rollout.overdue else Outlook.UNDERWAY


def _finding(
    status: Literal["True", "False", "Unknown"], reason: str, message: str, outlook: Outlook
) -> Finding:
    condition = Condition(ConditionType.AVAILABLE, status, reason, bounded(message))
    return Finding(condition=condition, outlook=outlook)
