"""Conditions: what the status says, in words that scripts and people rely on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal

LONGEST_MESSAGE: Final = 4096
"""Characters; longer messages are cut."""


class ConditionType(StrEnum):
    """The types of conditions on a ModelDeployment and a ModelImage."""

    READY = "Ready"
    MODELS_RESOLVED = "ModelsResolved"
    IMAGE_READY = "ImageReady"
    IMAGE_VERIFIED = "ImageVerified"
    """Only where the operator's configuration asks for verification."""
    AVAILABLE = "Available"
    DRIFT_DETECTED = "DriftDetected"
    OUTLIERS_DETECTED = "OutliersDetected"
    MONITORING_HEALTHY = "MonitoringHealthy"
    SERVICE_HEALTHY = "ServiceHealthy"
    UPDATE_AVAILABLE = "UpdateAvailable"
    """Absent where there is no update."""
    RECONCILING = "Reconciling"
    """kstatus: abnormal-true, absent when normal."""
    STALLED = "Stalled"
    """kstatus: abnormal-true, absent when normal."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One wanted condition, without the bookkeeping of transitions."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def merge_conditions(
    previous: Iterable[Mapping[str, Any]],
    wanted: Iterable[Condition],
    *,
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """Write `wanted` as the API knows conditions, sorted by type.

    `lastTransitionTime` moves only when the status of a type changes. Types that are not wanted
    any more disappear.
    """
    before = {condition.get("type"): condition for condition in previous}
    merged = []
    for condition in sorted(wanted, key=lambda condition: condition.type):
        old = before.get(condition.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == condition.status else None
        merged.append(
            {
                "type": str(condition.type),
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since or timestamp(now),
                "reason": str(condition.reason),
                "message": _shortened(condition.message),
            }
        )
    return merged


def _shortened(message: str) -> str:
    """Keep a message within what a person reads, and far within what the API server takes."""
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 2] + " …"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes `metav1.Time`."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
