"""What goes into `reconcile` and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

from modelops_operator.api.conditions import Condition
from modelops_operator.api.facts import Failure, ModelVersion, Pod, Role, Signed
from modelops_operator.core.packing import pack, unpack

Manifest = Mapping[str, Any]
"""A Kubernetes object as the API server speaks it: a tree of dicts, lists and scalars."""


@dataclass(frozen=True, slots=True, order=True)
class ChildRef:
    """Names a child; its namespace is the owner's."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Health:
    """The judgement of one deployment's telemetry, ready to be written into its status."""

    conditions: tuple[Condition, ...]
    """DriftDetected, OutliersDetected, MonitoringHealthy and ServiceHealthy."""
    packed: bytes
    """The evidence, of which thousands are kept."""

    @classmethod
    def of(cls, *, conditions: tuple[Condition, ...] = (), evidence: Mapping[str, Any]) -> Self:
        """Pack the evidence."""
        return cls(conditions, pack(evidence))

    @property
    def evidence(self) -> Mapping[str, Any]:
        """The object `status.health`; empty while nothing was measured."""
        return unpack(self.packed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything known about one ModelDeployment at one moment."""

    models: Mapping[Role, ModelVersion | Failure] = field(default_factory=dict)
    """For each model in the spec: the version that it names or its alias leads to now."""
    images: Mapping[str, Manifest] = field(default_factory=dict)
    """Live ModelImages by name: at least those that this deployment may want."""
    children: Mapping[ChildRef, Manifest] = field(default_factory=dict)
    """Live objects under the names that we use, whoever owns them."""
    pods: tuple[Pod, ...] = ()
    signatures: Mapping[str, Signed | Failure] = field(default_factory=dict)
    """What is known of the signatures of images, by reference; nobody has asked for others yet."""
    health: Health | None = None
    """None until the first evaluation, or when no telemetry is expected."""
    write_failures: Mapping[ChildRef, Failure] = field(default_factory=dict)
    """What the API server answered to the last attempt at writing a child, where it refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Kubernetes Event on the ModelDeployment."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now. Executed in the order of the fields."""

    verify: tuple[str, ...] = ()
    """Images whose signature is to be looked for."""
    image: Manifest | None = None
    """A ModelImage to create, where it does not exist."""
    handover: Manifest | None = None
    """The Deployment's number of replicas, for a field manager other than ours to apply."""
    apply: tuple[Manifest, ...] = ()
    """Children that differ from what they should be, for server-side apply."""
    delete: tuple[ChildRef, ...] = ()
    status: Manifest = field(default_factory=dict)
    """The whole status that the object should have."""
    events: tuple[Event, ...] = ()
    requeue_after: timedelta | None = None
    """Look again then, even if nothing is heard."""
