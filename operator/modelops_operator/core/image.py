"""Which image serves a release: the ModelImage to ask for, and how far it is."""

import re
from collections.abc import Mapping
from typing import Any

from modelops_runtime.bento import ServingRuntime

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.core.differences import digest
from modelops_operator.core.findings import Finding, Outlook
from modelops_operator.core.release import Release, ReleasedModel
from modelops_operator.core.state import ChildRef, Manifest

NAME_LENGTH = 50
"""The longest part of an image's name that comes from the model's."""


def wanted_image(
    versions: Mapping[Role, ModelVersion],
    *,
    rebuild: str | None,
    config: OperatorConfig,
    profile: ServingRuntime = ServingRuntime.AUTO,
) -> dict[str, Any]:
    """Give the ModelImage that serves these model versions.

    Its name is made of all that it asks for: deployments that want the same share one build.
    Raises KeyError where no base image is configured, see `missing_base`.
    """
    slug, python = sanitized(versions[Role.PREDICTOR].name), _python(versions, config)
    spec = {
        "models": [
            {
                "role": str(role),
                "name": versions[role].name,
                "version": versions[role].version,
                "runId": versions[role].run_id,
                "source": versions[role].source,
            }
            for role in Role
            if role in versions
        ],
        "trackingUri": config.mlflow.tracking_uri,
        "repository": "/".join(filter(None, (config.registry.host, config.registry.prefix, slug))),
        "runtime": {
            "version": config.runtime.version,
            # Left out of the name, which is then what it was before there was a choice.
            **({} if profile is ServingRuntime.AUTO else {"profile": str(profile)}),
        },
        "python": python,
        "platforms": list(config.builder.platforms),
        "base": config.builder.bases[python],
        **({} if rebuild is None else {"rebuild": rebuild}),
    }
    return {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelImage",
        "metadata": {
            "name": f"{slug}-{digest(spec)[:12]}",
            "namespace": config.operator.namespace,
            "labels": {"app.kubernetes.io/managed-by": "modelops-operator"},
        },
        "spec": spec,
    }


def sanitized(model: str) -> str:
    """Make a model's name usable in names of objects and of repositories."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:NAME_LENGTH].strip("-")
    return slug or "model"


def built_release(
    image: Manifest, models: tuple[ReleasedModel, ...], live: Manifest | None
) -> Release | None:
    """Give the release that the ModelImage `live` makes possible; None while it is not built."""
    if live is None or _ready(live).get("status") != "True":
        return None
    built = live.get("status", {}).get("image") or {}
    if not built.get("reference"):
        return None
    return Release(
        models=models,
        reference=built["reference"],
        lock=built.get("lock") or "",
        runtime=image["spec"]["runtime"]["version"],
        profile=image["spec"]["runtime"].get("profile") or ServingRuntime.AUTO,
        form=built.get("form") or "",
        rebuild=image["spec"].get("rebuild"),
    )


def image_finding(image: Manifest, live: Manifest | None, refusal: Failure | None) -> Finding:
    """Say how far the wanted image is; the builder's own words are passed through."""
    name = image["metadata"]["name"]
    if live is None:
        return _not_yet_asked_for(name, refusal)
    if live.get("metadata", {}).get("deletionTimestamp"):
        message = f"ModelImage {name} is being deleted; it is asked for again when it is gone"
        return _underway(Reason.WAITING_FOR_BUILDER, message)
    ready = _ready(live)
    stalled = _condition(live, ConditionType.STALLED)
    if stalled.get("status") == "True":
        told = ready if ready.get("status") == "False" else stalled
        return _finding("False", told, name, Outlook.STUCK)
    if ready.get("status") == "False":
        return _finding("False", ready, name, Outlook.UNDERWAY)
    reference = (live.get("status", {}).get("image") or {}).get("reference")
    if ready.get("status") != "True" or not reference:
        return _building(live, name, ready)
    message = f"ModelImage {name} is {reference}"
    return Finding(
        condition=Condition(ConditionType.IMAGE_READY, "True", Reason.IMAGE_BUILT, message),
        outlook=Outlook.SETTLED,
    )


def _python(versions: Mapping[Role, ModelVersion], config: OperatorConfig) -> str:
    """Give the Python that the predictor was logged with, if there is a base image for it."""
    recorded = versions[Role.PREDICTOR].python
    return recorded if recorded and recorded in config.builder.bases else config.builder.python


def missing_base(versions: Mapping[Role, ModelVersion], config: OperatorConfig) -> Finding | None:
    """Say that nothing can be built without a base image, where none is configured."""
    python = _python(versions, config)
    if python in config.builder.bases:
        return None
    told = {
        "reason": Reason.BASE_IMAGE_NOT_FOUND,
        "message": (
            f"the operator's configuration has no base image for Python {python}:"
            f' set builder.bases["{python}"] to one by digest'
        ),
    }
    return _finding("False", told, "", Outlook.STUCK)


def waiting_for_models() -> Finding:
    """Say that nothing can be asked for yet."""
    return _underway(Reason.WAITING_FOR_MODELS, "the models are not resolved")


def running_image(release: Release) -> Finding:
    """Say that no image is needed but the one that runs."""
    message = f"{release.reference} serves {release.describe()}"
    return Finding(
        condition=Condition(ConditionType.IMAGE_READY, "True", Reason.IMAGE_BUILT, message),
        outlook=Outlook.SETTLED,
    )


def image_ref(image: Manifest) -> ChildRef:
    """Name the ModelImage as refusals of writes name it."""
    return ChildRef("ModelImage", image["metadata"]["name"])


def _not_yet_asked_for(name: str, refusal: Failure | None) -> Finding:
    if refusal is None:
        return _underway(Reason.WAITING_FOR_BUILDER, f"ModelImage {name} is asked for")
    told = {
        "reason": refusal.reason,
        "message": f"ModelImage {name} cannot be created: {refusal.message}",
    }
    return _finding("False", told, name, Outlook.STUCK if refusal.permanent else Outlook.UNDERWAY)


def _building(live: Manifest, name: str, ready: Mapping[str, Any]) -> Finding:
    if not ready:
        message = (
            f"ModelImage {name} waits for a builder; if none takes it up, see"
            f" `kubectl describe modelimage {name} -n {live['metadata']['namespace']}`"
            " and the builder's log"
        )
        return _underway(Reason.WAITING_FOR_BUILDER, message)
    return _finding("Unknown", ready, name, Outlook.UNDERWAY)


def _finding(status: Any, told: Mapping[str, Any], name: str, outlook: Outlook) -> Finding:
    reason = told.get("reason") or Reason.BUILD_FAILED
    message = told.get("message") or f"see `kubectl describe modelimage {name}`"
    return Finding(
        condition=Condition(ConditionType.IMAGE_READY, status, reason, message), outlook=outlook
    )


def _underway(reason: Reason, message: str) -> Finding:
    return Finding(
        condition=Condition(ConditionType.IMAGE_READY, "Unknown", reason, message),
        outlook=Outlook.UNDERWAY,
    )


def _ready(live: Manifest) -> Mapping[str, Any]:
    return _condition(live, ConditionType.READY)


def _condition(live: Manifest, type_: ConditionType) -> Mapping[str, Any]:
    conditions = live.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == type_), {})
