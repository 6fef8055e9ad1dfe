"""Which children are not as they should be, and which names are taken by somebody else."""

from dataclasses import dataclass
from typing import Any

from modelops_operator.api.config import OperatorConfig, PodSecurity
from modelops_operator.api.facts import Failure
from modelops_operator.api.pods import PodSettings
from modelops_operator.api.resources import ModelDeploymentSpec, Serving
from modelops_operator.core import children
from modelops_operator.core.differences import changed_paths, differs
from modelops_operator.core.pod_template import (
    Settings,
    Template,
    generated,
    objection,
    remembered_template,
)
from modelops_operator.core.release import Release
from modelops_operator.core.scene import Scene
from modelops_operator.core.state import ChildRef, Manifest
from modelops_operator.core.target import Target

SHOWN_PATHS = 5
"""Fields that are named where a pod template waits for its update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be done to the children, and what cannot be."""

    handover: Manifest | None = None
    apply: tuple[Manifest, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    collisions: tuple[ChildRef, ...] = ()
    leaving: tuple[ChildRef, ...] = ()
    objection: Failure | None = None
    """Why the pods are not as the spec wants them."""
    waiting: tuple[str, ...] = ()
    """Fields of the pods that wait for an update."""

    @property
    def applied(self) -> frozenset[ChildRef]:
        """Names the children that are written."""
        handed = () if self.handover is None else (self.handover,)
        return frozenset(_ref(manifest) for manifest in (*handed, *self.apply))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pods:
    """What the Deployment is to run."""

    release: Release
    template: Template
    waiting: tuple[str, ...] = ()


def plan_changes(
    scene: Scene,
    spec: ModelDeploymentSpec,
    target: Target,
    config: OperatorConfig,
    *,
    renew: bool = False,
) -> Changes:
    """Compare the children with what they should be; what is another's is left alone.

    `renew` replaces pods that this operator would generate otherwise than they were.
    """
    owner, live, serving = scene.owner, scene.observed.children, spec.serving
    names = [owner.child(kind) for kind in children.kinds(serving)]
    present = {ref: live[ref] for ref in names if ref in live}
    ours = {ref for ref, child in live.items() if owner.owns(child)}
    leaving = {
        ref
        for ref, child in present.items()
        if (ref in ours and _is_leaving(child)) or owner.succeeds_owner_of(child)
    }
    collisions = tuple(ref for ref in names if ref in present.keys() - ours - leaving)
    settings = _settings(spec)
    refusal = objection(
        owner, settings, restricted=config.policy.pod_security is PodSecurity.RESTRICTED
    )
    pods = _pods(scene, target, settings, refused=refusal is not None, renew=renew)
    apply = tuple(
        manifest
        for manifest in _wanted(scene, serving, pods)
        if _ref(manifest) not in leaving
        and (_ref(manifest) not in present or differs(manifest, present[_ref(manifest)]))
    )
    obsolete = (ref for ref in ours if ref not in names and not _is_leaving(live[ref]))
    return Changes(
        # With a name taken, nothing is begun: pods would run under an account of somebody else's.
        handover=None if collisions or leaving else _handover(scene, serving, pods),
        apply=() if collisions else apply,
        delete=tuple(sorted(obsolete)),
        collisions=collisions,
        leaving=tuple(ref for ref in names if ref in leaving),
        objection=refusal,
        waiting=pods.waiting if pods else (),
    )


def _settings(spec: ModelDeploymentSpec) -> Settings:
    resources = spec.serving.resources
    pods: dict[str, Any] = spec.serving.model_dump(
        mode="json", by_alias=True, exclude_none=True, include={*PodSettings.model_fields}
    )
    return Settings(
        resources={} if resources is None else resources.model_dump(exclude_none=True),
        window=spec.monitoring.window,
        pods=pods,
    )


def _pods(
    scene: Scene, target: Target, settings: Settings, *, refused: bool, renew: bool
) -> _Pods | None:
    """Give what the Deployment is to run; None while there is nothing that it could."""
    remembered = remembered_template(scene.deployment)
    if refused:
        # Neither the refused pods nor a new release in pods of a former edit: all stays.
        deployed = scene.deployed
        if deployed is None or remembered is None:
            return None
        return _Pods(release=deployed, template=remembered)
    if target.release is None:
        return None
    if target.frozen and remembered is not None:
        return _Pods(release=target.release, template=remembered)
    fresh = generated(scene.owner, target.release, settings)
    if remembered is None or remembered.inputs != fresh.inputs or renew:
        return _Pods(release=target.release, template=fresh)
    waiting = changed_paths(remembered.pod, fresh.pod)[:SHOWN_PATHS]
    return _Pods(release=target.release, template=remembered, waiting=waiting)


def _wanted(scene: Scene, serving: Serving, pods: _Pods | None) -> tuple[Manifest, ...]:
    companions = children.companions(scene.owner)
    if pods is None:
        return companions
    replicas = _replicas(scene, serving)
    deployment = children.deployment(scene.owner, pods.release, pods.template, replicas)
    scaling = serving.autoscaling
    scalers = () if scaling is None else (children.autoscaler(scene.owner, scaling),)
    return (*companions, deployment, *scalers)


def _replicas(scene: Scene, serving: Serving) -> int | None:
    """Give the number of replicas; None where it is an autoscaler's."""
    if serving.autoscaling is None:
        return serving.replicas
    if scene.deployment is None:
        # It begins with as many as there were, should somebody have deleted it.
        return serving.autoscaling.clamp(scene.previous.get("replicas") or 0)
    return None


def _handover(scene: Scene, serving: Serving, pods: _Pods | None) -> Manifest | None:
    """Let another manager have the number of replicas, before it is left out for the first time.

    Of a Deployment without replicas an autoscaler keeps off, so that these are repaired, too.
    """
    live, scaling = scene.deployment, serving.autoscaling
    if live is None or scaling is None or pods is None:
        return None
    replicas = live["spec"].get("replicas", 1)
    if children.SCALED_BY in (live["metadata"].get("annotations") or {}) and replicas > 0:
        return None
    return children.handover(live, scaling.clamp(replicas))


def _ref(manifest: Manifest) -> ChildRef:
    return ChildRef(manifest["kind"], manifest["metadata"]["name"])


def _is_leaving(child: Manifest) -> bool:
    return "deletionTimestamp" in child["metadata"]
