"""Which children are not as they should be, and which names are taken by somebody else."""

from dataclasses import dataclass

from modelops_operator.api.resources import ModelDeploymentSpec
from modelops_operator.core import children
from modelops_operator.core.children import Settings
from modelops_operator.core.differences import differs
from modelops_operator.core.scene import Scene
from modelops_operator.core.state import ChildRef, Manifest
from modelops_operator.core.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be done to the children, and what cannot be."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    collisions: tuple[ChildRef, ...] = ()
    leaving: tuple[ChildRef, ...] = ()

    @property
    def applied(self) -> frozenset[ChildRef]:
        """Names the children that are written."""
        return frozenset(_ref(manifest) for manifest in self.apply)


def plan_changes(scene: Scene, spec: ModelDeploymentSpec, target: Target) -> Changes:
    """Compare the children with what they should be; what is another's is left alone."""
    owner, live = scene.owner, scene.observed.children
    names = [owner.child(kind) for kind in children.KINDS]
    present = {ref: live[ref] for ref in names if ref in live}
    ours = {ref for ref, child in live.items() if children.is_ours(owner, child)}
    leaving = {
        ref
        for ref, child in present.items()
        if (ref in ours and _is_leaving(child)) or children.is_predecessors(owner, child)
    }
    collisions = tuple(ref for ref in names if ref in present.keys() - ours - leaving)
    apply = tuple(
        manifest
        for manifest in _wanted(scene, spec, target)
        if _ref(manifest) not in leaving
        and (_ref(manifest) not in present or differs(manifest, present[_ref(manifest)]))
    )
    obsolete = (ref for ref in ours if ref not in names and not _is_leaving(live[ref]))
    return Changes(
        # With a name taken, nothing is begun: pods would run under an account of somebody else's.
        apply=() if collisions else apply,
        delete=tuple(sorted(obsolete)),
        collisions=collisions,
        leaving=tuple(ref for ref in names if ref in leaving),
    )


def _wanted(scene: Scene, spec: ModelDeploymentSpec, target: Target) -> tuple[Manifest, ...]:
    companions = children.companions(scene.owner)
    if target.release is None:
        return companions
    resources = spec.serving.resources
    settings = Settings(
        resources={} if resources is None else resources.model_dump(exclude_none=True),
        window=spec.monitoring.window,
    )
    remembered = children.remembered_template(scene.deployment) if target.frozen else None
    pods = remembered or children.template(scene.owner, target.release, settings, scene.deployment)
    replicas = spec.serving.replicas
    return (*companions, children.deployment(scene.owner, target.release, pods, replicas))


def _ref(manifest: Manifest) -> ChildRef:
    return ChildRef(manifest["kind"], manifest["metadata"]["name"])


def _is_leaving(child: Manifest) -> bool:
    return "deletionTimestamp" in child["metadata"]
