"""What is watched, and what it is held against."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from modelops_runtime.profile import Profile

from modelops_operator.api.facts import Failure, Role
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.service import Pending, Restart, serves

USUAL_RATE: Final = 0.01
"""Of outliers, where a detector does not say."""
USUAL_ROWS: Final = 10_000
"""Rows of reference data, where nobody has counted them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierReference:
    """How often the outlier detector flags a row of the reference data."""

    hits: int
    """Rows of the reference data that it flags."""
    rows: int

    @classmethod
    def of(cls, rate: float, rows: int) -> Self:
        """Read it from `reference_rate` in detector.json and the rows of the reference data.

        Raises ValueError for a rate that is none, or without rows.
        """
        if not 0 <= rate <= 1 or rows < 1:
            raise ValueError(f"a reference rate of {rate} in {rows} rows says nothing")
        return cls(hits=round(rate * rows), rows=rows)

    @property
    def rate(self) -> float:
        """Share of the reference data's rows, 0 to 1."""
        return self.hits / self.rows


@dataclass(frozen=True, slots=True)
class OfOthers:
    """A detector without the modelops flavor: the pods run it on samples, and tell its verdicts."""

    usual_rate: float = USUAL_RATE
    """Share of rows that an outlier detector flags in data like the reference's."""

    @property
    def reference(self) -> OutlierReference:
        """How often it flags a row, as if counted."""
        return OutlierReference.of(self.usual_rate, USUAL_ROWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """A pod that is ready, and so has to report."""

    pod: str
    since: datetime
    """When it became ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Everything that one deployment's telemetry is judged by, besides the telemetry."""

    monitoring: Monitoring
    """`spec.monitoring`: window and thresholds."""
    drift: Profile | OfOthers | Failure | None
    """The reference profile of the running drift detector; why it cannot be had; None without
    a drift detector."""
    outliers: OutlierReference | OfOthers | Failure | None
    """The same for the outlier detector."""
    reporters: tuple[Reporter, ...]
    """The ready pods of the running revision."""
    restarts: tuple[Restart, ...] = ()
    """The last restart of each pod, the latest first."""
    pending: tuple[Pending, ...] = ()
    """Pods that wait for a node or an image, the first to wait first."""
    failure: Failure | None = None
    """Of the last `Reading`."""
    source: str = ""
    """Where the telemetry is read from."""
    detectors: Mapping[Role, str] = field(default_factory=dict)
    """Name and version of the models that are the reference, by role."""


def reporters(pods: Iterable[Mapping[str, Any]], revision: str) -> tuple[Reporter, ...]:
    """Find the pods that have to report, among pods as the API server tells them."""
    found = ((pod, _ready_since(pod)) for pod in pods if serves(pod, revision))
    return tuple(
        Reporter(pod=pod["metadata"]["name"], since=since)
        for pod, since in found
        if since is not None
    )


def _ready_since(pod: Mapping[str, Any]) -> datetime | None:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            since = condition.get("lastTransitionTime")
            return datetime.fromisoformat(since or pod["metadata"]["creationTimestamp"])
    return None
