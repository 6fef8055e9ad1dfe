"""Which release is to run: the wanted one, or what runs until its image is there."""

from dataclasses import dataclass, replace

from modelops_operator.api.config import OperatorConfig, Rebase
from modelops_operator.api.resources import ModelDeployment, ModelDeploymentSpec
from modelops_operator.core.findings import Finding
from modelops_operator.core.image import (
    built_release,
    image_finding,
    image_ref,
    missing_base,
    running_image,
    waiting_for_models,
    wanted_image,
)
from modelops_operator.core.release import Release
from modelops_operator.core.resolution import Resolution, released_models
from modelops_operator.core.scene import Scene
from modelops_operator.core.state import Manifest
from modelops_operator.core.updates import has_other_base, image_updates
from modelops_operator.core.wishes import pending_rebuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The release that is to run now, and what is missing for the one that is wanted."""

    finding: Finding
    release: Release | None
    """The wanted one, or until its image is there, the running one; None before the first."""
    frozen: bool = False
    """An edit asks for another release, so that its other changes to the pods wait for it too:
    one edit, one rollout."""
    create: Manifest | None = None
    """A ModelImage to ask for."""


def choose_target(
    scene: Scene,
    desired: ModelDeployment,
    resolution: Resolution,
    config: OperatorConfig,
    *,
    renew: bool = False,
) -> Target:
    """Choose between what runs and what is wanted, and ask for the image that is missing.

    `renew` replaces an image that would be built otherwise by now.
    """
    if resolution.versions is None:
        if scene.running is not None and scene.serves(desired.spec):
            return Target(finding=running_image(scene.running), release=scene.running)
        return _meanwhile(scene, desired.spec, waiting_for_models())
    models = released_models(desired.spec.models.by_role(), resolution.versions)
    profile, rebuild = desired.spec.serving.runtime, pending_rebuild(scene, desired)
    rebased = config.builder.rebase is Rebase.AUTOMATIC and has_other_base(scene, config)
    outdated = rebased or (renew and bool(image_updates(scene, config)))
    settled = rebuild is None and not outdated
    if scene.running is not None and settled and scene.running.serves(models, profile):
        # An upgrade of the operator must restart nothing: runtime and base image stay, too.
        release = replace(scene.running, models=models)
        return Target(finding=running_image(release), release=release)
    hindrance = missing_base(resolution.versions, config)
    if hindrance is not None:
        return _meanwhile(scene, desired.spec, hindrance)
    image = wanted_image(resolution.versions, rebuild=rebuild, config=config, profile=profile)
    live = scene.observed.images.get(image["metadata"]["name"])
    finding = image_finding(image, live, scene.observed.write_failures.get(image_ref(image)))
    new = built_release(image, models, live)
    if new is not None:
        return Target(finding=finding, release=new)
    return replace(_meanwhile(scene, desired.spec, finding), create=image if live is None else None)


def _meanwhile(scene: Scene, spec: ModelDeploymentSpec, finding: Finding) -> Target:
    """Let what runs go on, while something is missing for what is wanted."""
    frozen = scene.running is not None and not scene.serves(spec)
    return Target(finding=finding, release=scene.running, frozen=frozen)
