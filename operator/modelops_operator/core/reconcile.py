"""The decision: from what is desired and what is observed to what is to be done now.

`reconcile` is level-triggered: it looks at how things are, never at what has happened. Killed at
any point and started again, it comes to the same end. It does no I/O; the shell gathers `Observed`
and executes the `Plan`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import (
    ModelDeployment,
    ModelDeploymentSpec,
    validation_message,
)
from modelops_operator.core.availability import Deployed, availability
from modelops_operator.core.changes import Changes, plan_changes
from modelops_operator.core.events import events
from modelops_operator.core.findings import bounded
from modelops_operator.core.history import history, remembered
from modelops_operator.core.policy import denied
from modelops_operator.core.readiness import Serving, at_rest, overall, soonest
from modelops_operator.core.release import ReleasedModel
from modelops_operator.core.resolution import Inquiry, Resolution, released_models, resolve
from modelops_operator.core.scene import Scene
from modelops_operator.core.state import Manifest, Observed, Plan
from modelops_operator.core.status import Account, write_status
from modelops_operator.core.target import choose_target
from modelops_operator.core.updates import Renewal, image_updates
from modelops_operator.core.verification import verified
from modelops_operator.core.wishes import granted_wishes

COLLISION_INTERVAL = timedelta(seconds=30)
"""How often to look whether an object that is not ours, and not watched, has gone."""


def reconcile(
    desired: ModelDeployment, observed: Observed, *, now: datetime, config: OperatorConfig
) -> Plan:
    """Decide what is to be done for one ModelDeployment.

    `desired` carries the status that was written last; `now` serves for the times in the new one.
    """
    if desired.metadata.deletion_timestamp is not None:
        return Plan(status=desired.status.stored)  # Its children go with it.
    scene = Scene.of(desired, observed)
    if desired.spec.suspend:
        return _suspended(scene, desired.spec, now)

    # Which versions of the models are wanted?
    resolution = resolve(_inquiry(scene, desired.spec, config, now))
    # Which image serves them, and is it there? Until then, what runs is what is to run.
    renewal = Renewal.of(scene, desired, config, now)
    chosen = choose_target(scene, desired, resolution, config, renew=renewal.due)
    # Is it signed? Without a signature that is asked for, it does not replace what runs.
    verdict = verified(scene, desired.spec, chosen, config)
    target = verdict.target
    # Which children are not as they should be?
    changes = plan_changes(scene, desired.spec, target, config, renew=renewal.due)
    # Do the pods serve what they should?
    available = availability(_deployed(scene, changes))
    # What would a newer operator do otherwise?
    waiting = (*image_updates(scene, config), *changes.waiting)
    update = renewal.finding(waiting)
    # What does all this mean?
    findings = (
        *(resolution.finding, target.finding, *verdict.findings, available),
        *(() if update is None else (update,)),
    )
    account = Account(
        conditions=(
            *overall(findings, _serving(scene, changes)),
            *(found.condition for found in findings),
        ),
        roles=desired.spec.models.by_role().keys(),
        models=_told_models(scene, desired.spec, resolution),
        history=history(scene, desired.metadata, available, now),
        handled=granted_wishes(scene, desired, updated=not waiting and not changes.apply),
    )
    status = write_status(scene, account, now)
    return Plan(
        verify=verdict.ask,
        image=target.create,
        handover=changes.handover,
        apply=changes.apply,
        delete=changes.delete,
        status=status,
        events=events(scene.previous, status),
        requeue_after=COLLISION_INTERVAL if changes.collisions else soonest(findings),
    )


def invalid(
    metadata: Mapping[str, Any],
    previous: Manifest,
    error: ValidationError,
    observed: Observed,
    *,
    now: datetime,
) -> Plan:
    """Decide for an object whose spec is not understood: what runs goes on running.

    The API server refuses such specs; they come from an older schema or a newer operator.
    `metadata` is the object's own as the API server gives it, `previous` the status that was
    written last.
    """
    if metadata.get("deletionTimestamp"):
        return Plan(status=previous)
    scene = Scene.unread(metadata, previous, observed)
    told = bounded(f"the spec is not understood: {validation_message(error)}")
    stalled = Condition(ConditionType.STALLED, "True", Reason.INVALID_SPEC, told)
    message = "nothing is changed until the spec is mended"
    account = Account(
        conditions=(stalled, *_resting(scene, Reason.INVALID_SPEC, message)),
        roles={model.role for model in _running_models(scene)},
        models=_running_models(scene),
        history=remembered(scene),
        handled=scene.handled,
    )
    return _stand_still(scene, account, now)


def _suspended(scene: Scene, spec: ModelDeploymentSpec, now: datetime) -> Plan:
    """Write nothing but the status, as Flux and CronJobs do; the models go on running."""
    message = "nothing is changed while spec.suspend is true"
    account = Account(
        conditions=_resting(scene, Reason.SUSPENDED, message),
        roles=spec.models.by_role().keys(),
        models=_running_models(scene),
        history=remembered(scene),
        handled=scene.handled,
    )
    return _stand_still(scene, account, now)


def _stand_still(scene: Scene, account: Account, now: datetime) -> Plan:
    status = write_status(scene, account, now)
    return Plan(status=status, events=events(scene.previous, status))


def _resting(scene: Scene, reason: Reason, message: str) -> tuple[Condition, ...]:
    """Give the conditions of an object that nothing is done for, but that is looked at."""
    nothing = Changes()
    unknown = [ConditionType.MODELS_RESOLVED, ConditionType.IMAGE_READY]
    if scene.former(ConditionType.IMAGE_VERIFIED):
        unknown.append(ConditionType.IMAGE_VERIFIED)
    return (
        at_rest(reason, message, _serving(scene, nothing)),
        *(Condition(type_, "Unknown", reason, message) for type_ in unknown),
        availability(_deployed(scene, nothing)).condition,
    )


def _inquiry(
    scene: Scene, spec: ModelDeploymentSpec, config: OperatorConfig, now: datetime
) -> Inquiry:
    references = spec.models.by_role()
    return Inquiry(
        references=references,
        denied=denied(scene.owner.namespace, references, config.policy),
        found=scene.observed.models,
        settled=scene.serves(spec),
        waited=_waited(scene, config.mlflow.settle, now),
        settle=config.mlflow.settle,
    )


def _waited(scene: Scene, settle: timedelta, now: datetime) -> timedelta | None:
    """Tell for how long the aliases have been leading to different trainings."""
    former = scene.former(ConditionType.MODELS_RESOLVED)
    if former.get("reason") != Reason.WAITING_FOR_RELEASE:
        return None
    if former["status"] == "False":
        return settle  # It had lasted too long already.
    return now - datetime.fromisoformat(former["lastTransitionTime"])


def _deployed(scene: Scene, changes: Changes) -> Deployed:
    failures, pods = scene.observed.write_failures, scene.owner.child("Deployment")
    refusals = {ref: failures[ref] for ref in changes.applied if ref in failures}
    return Deployed(
        rollout=scene.rollout,
        exists=scene.deployment is not None,
        applying=pods in changes.applied,
        pods=scene.observed.pods,
        collisions=changes.collisions,
        leaving=changes.leaving,
        refusals=refusals | ({pods: changes.objection} if changes.objection else {}),
    )


def _serving(scene: Scene, changes: Changes) -> Serving:
    rollout, former = scene.rollout, scene.former(ConditionType.READY)
    applying = scene.owner.child("Deployment") in changes.applied
    parked = scene.deployment is not None and not applying and rollout.parked
    reached = (former.get("status"), former.get("observedGeneration"))
    return Serving(
        pods=rollout.available,
        told=_told_revisions(scene),
        parked=parked,
        reached=reached == ("True", scene.generation),
    )


def _told_revisions(scene: Scene) -> str:
    """Name the revisions whose pods are ready: two of them during a rollout."""
    pods = scene.observed.pods
    ready = {pod.revision for pod in pods if pod.ready and not pod.deleting}
    running = scene.running
    if running is not None and ready <= {running.revision}:
        return f"revision {running.revision} ({running.describe()})"
    return " and ".join(f"revision {revision}" for revision in sorted(ready)) or "something unknown"


def _running_models(scene: Scene) -> tuple[ReleasedModel, ...]:
    return () if scene.running is None else scene.running.models


def _told_models(
    scene: Scene, spec: ModelDeploymentSpec, resolution: Resolution
) -> tuple[ReleasedModel, ...]:
    """Give what the Deployment runs; before the first rollout, what the spec leads to."""
    resolved = released_models(spec.models.by_role(), resolution.versions or {})
    return _running_models(scene) or resolved
