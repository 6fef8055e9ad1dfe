"""What all steps of `reconcile` look at: the live object, and what is read out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.resources import ModelDeployment, ModelDeploymentSpec
from modelops_operator.core.availability import Rollout
from modelops_operator.core.owner import Owner
from modelops_operator.core.release import RELEASE, Release, running_release
from modelops_operator.core.resolution import serves_references
from modelops_operator.core.state import Manifest, Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What all steps look at, whatever the spec says."""

    owner: Owner
    generation: int
    previous: Manifest
    """The status that was written last."""
    observed: Observed
    deployment: Manifest | None
    """The live Deployment, if it is ours."""
    rollout: Rollout
    """How far that is."""
    running: Release | None
    """What it runs, or ran before somebody deleted it."""

    @classmethod
    def of(cls, desired: ModelDeployment, observed: Observed) -> Self:
        """Look at an object that is understood."""
        metadata = desired.metadata
        owner = Owner(name=metadata.name, namespace=metadata.namespace, uid=metadata.uid)
        return cls._of(owner, metadata.generation, desired.status.stored, observed)

    @classmethod
    def unread(cls, metadata: Mapping[str, Any], previous: Manifest, observed: Observed) -> Self:
        """Look at an object whose spec is not understood."""
        names = {key: metadata[key] for key in ("name", "namespace", "uid")}
        return cls._of(Owner(**names), metadata.get("generation", 0), previous, observed)

    @classmethod
    def _of(cls, owner: Owner, generation: int, previous: Manifest, observed: Observed) -> Self:
        live = observed.children.get(owner.child("Deployment"))
        ours = live if live is not None and owner.owns(live) else None
        return cls(
            owner=owner,
            generation=generation,
            previous=previous,
            observed=observed,
            deployment=ours,
            rollout=Rollout.of(ours),
            running=running_release(ours, previous, observed.images),
        )

    @property
    def deployed(self) -> Release | None:
        """What the live Deployment itself says that it runs."""
        if self.deployment is None:
            return None
        annotations = self.deployment["metadata"].get("annotations") or {}
        return Release.from_json(annotations.get(RELEASE, ""))

    @property
    def handled(self) -> Mapping[str, str]:
        """The wishes that were granted before, by name."""
        return self.previous.get("handledRequests") or {}

    def serves(self, spec: ModelDeploymentSpec) -> bool:
        """Whether what runs was released for the models and the runtime that the spec names."""
        running = self.running
        return (
            running is not None
            and running.profile == spec.serving.runtime
            and serves_references(running, spec.models.by_role())
        )

    def former(self, type_: ConditionType) -> Mapping[str, Any]:
        """Give a condition as it was written last; empty if it was not."""
        conditions = self.previous.get("conditions") or ()
        return next((found for found in conditions if found["type"] == type_), {})
