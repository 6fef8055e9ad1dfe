"""What keeps a pod from serving, told so that somebody can act on it."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelops_operator.api.facts import Pod
from modelops_operator.api.reasons import Reason
from modelops_operator.core.findings import MESSAGE_BYTES, bounded, count

CRASHES_UNTIL_STUCK = 3
"""Restarts after which a crash is no accident: about 40 seconds with Kubernetes' back-off."""

PULL_FAILURES = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ImageInspectError",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "InvalidImageName",
    }
)
CREATION_FAILURES = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a pod does not serve."""

    reason: Reason
    message: str
    stuck: bool
    """It will not pass by itself."""


def worst_trouble(pods: Iterable[Pod], *, revision: str) -> Trouble | None:
    """Find the trouble to tell of among the pods of one revision.

    The choice is a stable one, so that the status does not flicker between two crashing pods.
    """
    concerned = sorted(
        (pod for pod in pods if pod.revision == revision and not pod.ready and not pod.deleting),
        key=lambda pod: (pod.created, pod.name),
    )
    troubles = [trouble for pod in concerned if (trouble := pod_trouble(pod)) is not None]
    return min(troubles, key=lambda trouble: not trouble.stuck, default=None)


def pod_trouble(pod: Pod) -> Trouble | None:
    """Say what keeps one pod, which is not ready, from serving; None while it merely starts."""
    if pod.waiting in PULL_FAILURES:
        return _pull(pod)
    if pod.waiting == "Unschedulable":
        return _unschedulable(pod)
    if pod.waiting in CREATION_FAILURES:
        message = f"the container of pod {pod.name} cannot be created: {pod.message or pod.waiting}"
        return Trouble(reason=Reason.NOT_READY, message=bounded(message), stuck=False)
    if pod.terminated == "OOMKilled":
        return _out_of_memory(pod)
    if pod.exit_code is not None and (pod.restarts or pod.waiting or pod.phase == "Failed"):
        return _crash(pod)
    return None


def _pull(pod: Pod) -> Trouble:
    message = (
        f"the node cannot pull the image of pod {pod.name} ({pod.waiting}):"
        f" {pod.message or 'no further word from the kubelet'}. Check that the nodes reach the"
        " registry and may read the repository; if the image is gone from there, ask for it again"
        " with the annotation modelops.dev/rebuild"
    )
    stuck = pod.waiting == "InvalidImageName"
    return Trouble(reason=Reason.IMAGE_PULL_FAILED, message=bounded(message), stuck=stuck)


def _unschedulable(pod: Pod) -> Trouble:
    message = (
        f"no node takes pod {pod.name}: {pod.message or 'the scheduler does not say why'}"
        " Lower spec.serving.resources.requests or add nodes"
    )
    return Trouble(reason=Reason.UNSCHEDULABLE, message=bounded(message), stuck=False)


def _out_of_memory(pod: Pod) -> Trouble:
    message = (
        f"pod {pod.name} was killed at its memory limit"
        f" ({count(pod.restarts, 'restart')}): raise spec.serving.resources.limits.memory"
    )
    return Trouble(
        reason=Reason.OUT_OF_MEMORY, message=message, stuck=pod.restarts >= CRASHES_UNTIL_STUCK
    )


def _crash(pod: Pod) -> Trouble:
    said = f", {pod.message}" if pod.message else ""
    head = (
        f"pod {pod.name} exited with code {pod.exit_code} ({pod.terminated or 'Error'}{said}),"
        f" {count(pod.restarts, 'restart')}; `kubectl logs {pod.name} --previous` has its log"
    )
    return Trouble(
        reason=Reason.CRASHING,
        message=_with_tail(head, pod.log_tail),
        stuck=pod.restarts >= CRASHES_UNTIL_STUCK or pod.phase == "Failed",
    )


def _with_tail(head: str, log: str) -> str:
    """Add as many of the last lines as there is room for: the last ones tell most."""
    if not log.strip():
        return bounded(head)
    start = f"{head}. It ended with:\n"
    room = max(MESSAGE_BYTES - len(start.encode()), 0)
    tail = log.strip().encode()[-room:] if room else b""
    return bounded(start + tail.decode(errors="ignore"))
