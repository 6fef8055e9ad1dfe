"""How well requests are answered: restarts, failed requests and slow answers against objectives.

    verdict = judge_service(windows, objectives)

A rate is past its objective when chance does not explain it: the lower end of its confidence
interval is above, in two of the last three windows. So two failures among forty requests are no
alarm at an objective of 1 %, and forty among a thousand are.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from modelops_runtime.telemetry import LATENCY_EDGES

from modelops_operator.api.resources import Objectives
from modelops_operator.core.health.windows import Window

RECENT: Final = timedelta(minutes=15)
"""How long a restart is told of."""
PENDING_LONG: Final = timedelta(minutes=3)
"""How long a pod may wait for a node and its image before that is told of."""
SLOWEST: Final = 0.01
"""The share of the requests that may be slower than the objective for the 99th percentile."""
_Z: Final = 2.326
"""The standard normal's 99th percentile: one-sided confidence of 99 %."""


_REVISION_LABEL: Final = "modelops.dev/revision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A container that ended and was started again."""

    pod: str
    reason: str
    """As the kubelet tells it: OOMKilled, Error, Completed."""
    exit_code: int
    at: datetime
    count: int
    """Restarts of the pod so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A pod whose containers have not started."""

    pod: str
    since: datetime
    cause: str
    """As the scheduler or the kubelet tells it; empty if they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceVerdict:
    """What the last windows say of the service."""

    failing: bool
    """Too many requests fail."""
    slow: bool
    """Too many answers are slow."""
    unconfirmed: bool
    """The only window that there is, is past an objective."""


def judge_service(windows: Sequence[Window], objectives: Objectives) -> ServiceVerdict:
    """Hold one to three windows, oldest first, against the objectives."""
    failing = [_failing(window, objectives) for window in windows]
    slow = [_slow(window, objectives) for window in windows]
    alone = len(windows) == 1
    return ServiceVerdict(
        failing=sum(failing) > 1,
        slow=sum(slow) > 1,
        unconfirmed=alone and (failing[0] or slow[0]),
    )


def restarts(pods: Iterable[Mapping[str, Any]], revision: str) -> tuple[Restart, ...]:
    """Find the last restart of each pod of a revision, the latest first.

    `pods` are as the API server tells them.
    """
    found = [restart for pod in pods if serves(pod, revision) for restart in _of(pod)]
    return tuple(sorted(found, key=lambda restart: restart.at, reverse=True))


def pending(pods: Iterable[Mapping[str, Any]], revision: str) -> tuple[Pending, ...]:
    """Find the pods of a revision that wait for a node or an image, the first to wait first."""
    found = [
        Pending(
            pod=pod["metadata"]["name"],
            since=datetime.fromisoformat(pod["metadata"]["creationTimestamp"]),
            cause=_cause(pod["status"]),
        )
        for pod in pods
        if serves(pod, revision) and pod.get("status", {}).get("phase") == "Pending"
    ]
    return tuple(sorted(found, key=lambda each: (each.since, each.pod)))


def _cause(status: Mapping[str, Any]) -> str:
    containers = status.get("containerStatuses") or ()
    waiting = [(each.get("state") or {}).get("waiting") or {} for each in containers]
    lacking = [each for each in status.get("conditions") or () if each.get("status") == "False"]
    return next((each["message"] for each in (*waiting, *lacking) if each.get("message")), "")


def serves(pod: Mapping[str, Any], revision: str) -> bool:
    """Tell whether a pod is of a revision, and there to stay."""
    metadata = pod["metadata"]
    of_it = metadata.get("labels", {}).get(_REVISION_LABEL) == revision
    return of_it and not metadata.get("deletionTimestamp")


def _of(pod: Mapping[str, Any]) -> Iterable[Restart]:
    for container in pod.get("status", {}).get("containerStatuses") or ():
        # While it waits for its next start, the end is the current state.
        for state in (container.get("state"), container.get("lastState")):
            ended = (state or {}).get("terminated")
            if ended and ended.get("finishedAt"):
                yield Restart(
                    pod=pod["metadata"]["name"],
                    reason=ended.get("reason") or "Error",
                    exit_code=ended.get("exitCode", 0),
                    at=datetime.fromisoformat(ended["finishedAt"]),
                    count=container.get("restartCount", 0),
                )
                break


def least_share(hits: int, total: int) -> float:
    """Give the lower end of the confidence interval of a share, 0 to 1; 0 without any.

    The score interval (E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22, 1927), one-sided at 99 %: with
    p = hits / n,

        (p + z²/2n - z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n).
    """
    if not total:
        return 0.0
    share, spread = hits / total, _Z**2 / total
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    return max((share + spread / 2 - half) / (1 + spread), 0.0)


def slower(window: Window, seconds: float) -> int:
    """Count the requests that certainly took longer: those of the bins above."""
    return sum(
        count
        for bin_, count in window.latency.items()
        if bin_ > 0 and LATENCY_EDGES[bin_ - 1] >= seconds
    )


def _failing(window: Window, objectives: Objectives) -> bool:
    return least_share(window.server_errors, window.requests) > float(objectives.error_rate)


def _slow(window: Window, objectives: Objectives) -> bool:
    if objectives.p99 is None:
        return False
    timed = sum(window.latency.values())
    return least_share(slower(window, objectives.p99.total_seconds()), timed) > SLOWEST
