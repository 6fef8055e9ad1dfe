"""The whole status of a ModelDeployment, as section "Status" of the user's guide promises it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelops_operator.api.conditions import Condition, merge_conditions
from modelops_operator.api.facts import Role
from modelops_operator.core.release import Release, ReleasedModel
from modelops_operator.core.scene import Scene
from modelops_operator.core.verdicts import verdicts


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


def _running(release: Release | None) -> dict[str, Any]:
    if release is None:
        return {}
    return {
        "image": release.image(),
        "runtime": release.runtimes(),
        "revision": release.revision,
    }
