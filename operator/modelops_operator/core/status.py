"""The whole status of a ModelDeployment, as section "Status" of the user's guide promises it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelops_operator.api.conditions import Condition, ConditionType, merge_conditions
from modelops_operator.api.facts import Role
from modelops_operator.api.reasons import Reason
from modelops_operator.core.events import NO_TROUBLE
from modelops_operator.core.release import Release, ReleasedModel
from modelops_operator.core.scene import Scene
from modelops_operator.core.state import Manifest
from modelops_operator.core.verdicts import verdicts

MOVING = frozenset({"conditions", "replicas", "readyReplicas"})
"""Fields that move while pods come and go."""
GOING_ON = NO_TROUBLE | {Reason.ROLLING_OUT, Reason.PROGRESSING}
"""Why pods may not all be there while nothing is wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one pass has to tell, besides what can be seen in the scene."""

    conditions: tuple[Condition, ...]
    """All but the verdicts of the monitoring."""
    roles: AbstractSet[Role]
    """The models that there should be."""
    models: tuple[ReleasedModel, ...]
    """What the Deployment runs; before the first rollout, what the spec leads to."""
    history: Sequence[Mapping[str, Any]]
    """The last revisions."""
    handled: Mapping[str, str]
    """The wishes that were granted."""


def write_status(scene: Scene, account: Account, now: datetime) -> dict[str, Any]:
    """Give the status; fields that would be empty are absent, as in what the API server stores."""
    found = verdicts(scene.observed.health, account.roles, scene.previous, now)
    rollout, owner = scene.rollout, scene.owner
    status = {
        "observedGeneration": scene.generation,
        "conditions": merge_conditions(
            scene.previous.get("conditions") or (),
            (*account.conditions, *found.conditions),
            generation=scene.generation,
            now=now,
        ),
        "models": [model.to_dict() for model in account.models],
        **_running(scene.running),
        "url": f"http://{owner.name}.{owner.namespace}.svc",
        "replicas": rollout.total,
        "readyReplicas": rollout.ready,
        "selector": ",".join(f"{key}={value}" for key, value in owner.selector.items()),
        "health": found.evidence,
        "history": list(account.history),
        "handledRequests": account.handled,
    }
    empty: tuple[Any, ...] = ([], {})
    return {key: value for key, value in status.items() if value not in empty}


def merely_goes_on(before: Manifest, after: Manifest) -> bool:
    """Tell whether nothing is new but how far a rollout is that went on before, and goes on."""
    told, tells = _by_type(before), _by_type(after)
    if not told.keys() & tells.keys() >= {ConditionType.RECONCILING}:
        return False
    return _lasting(before, told) == _lasting(after, tells)


def _by_type(status: Manifest) -> Mapping[str, Manifest]:
    return {one["type"]: one for one in status.get("conditions") or ()}


def _lasting(status: Manifest, conditions: Mapping[str, Manifest]) -> Mapping[str, Any]:
    """Leave out what moves while pods come and go; trouble with them stays."""
    kept = {name: value for name, value in status.items() if name not in MOVING}
    reason = conditions.get(ConditionType.AVAILABLE, {}).get("reason")
    statuses = {
        name: one["status"] for name, one in conditions.items() if name != ConditionType.AVAILABLE
    }
    return {**kept, "statuses": statuses, "trouble": None if reason in GOING_ON else reason}


def _running(release: Release | None) -> dict[str, Any]:
    if release is None:
        return {}
    return {
        "image": release.image(),
        "runtime": release.runtimes(),
        "revision": release.revision,
    }
