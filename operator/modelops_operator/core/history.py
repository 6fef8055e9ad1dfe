"""Which revisions there were: who asked for each of them, when, and what became of it.

What a revision is, is read from the live Deployment, so that none is missed by an operator that was
killed in between, and none is told that nobody rolled out.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from modelops_operator.api.conditions import timestamp
from modelops_operator.api.resources import Metadata, Outcome, RevisionCause
from modelops_operator.core.findings import Finding, Outlook
from modelops_operator.core.release import Release
from modelops_operator.core.scene import Scene
from modelops_operator.core.wishes import PREFIX, REBUILD, UPDATE

LENGTH = 10
"""Revisions that are remembered."""
MESSAGE_LENGTH = 256
REGISTRY = "model registry"
"""Asks where an alias has moved."""
OPERATOR = "modelops-operator"
"""Asks where it was told to by its configuration."""

_WISHES = ("f:metadata", "f:annotations")
_ASKED_BY = {
    RevisionCause.EDIT: (("f:spec", "f:models"), ("f:spec", "f:serving", "f:runtime")),
    RevisionCause.REBUILD: ((*_WISHES, f"f:{PREFIX}{REBUILD}"),),
    RevisionCause.UPDATE: ((*_WISHES, f"f:{PREFIX}{UPDATE}"),),
}
ASKING = tuple(path for paths in _ASKED_BY.values() for path in paths)
"""The managed fields that tell who has asked for a revision."""

Entry = Mapping[str, Any]


def remembered(scene: Scene) -> list[Entry]:
    """Give the history as it was written last, the newest revision first."""
    return list(scene.previous.get("history") or ())


def history(scene: Scene, metadata: Metadata, available: Finding, now: datetime) -> list[Entry]:
    """Give the history as it is now. `available` is how the pods fare."""
    former, running = remembered(scene), scene.deployed
    if running is None:
        return former
    if not former or former[0]["revision"] != running.revision:
        former = [_begun(running, former, metadata, now), *_superseded(former, now)]
    newest, *rest = former
    if scene.rollout.revision == running.revision:
        newest = _judged(newest, available, now)
    return [newest, *rest][:LENGTH]


def _begun(
    running: Release, former: Sequence[Entry], metadata: Metadata, now: datetime
) -> dict[str, Any]:
    cause = _cause(running, former[0] if former else None)
    return {
        "number": former[0]["number"] + 1 if former else 1,
        "revision": running.revision,
        "models": [model.to_dict() for model in running.models],
        "image": running.reference.rpartition("@")[2],
        **({"profile": profile} if (profile := running.runtimes().get("profile")) else {}),
        "cause": str(cause),
        "requestedBy": _requester(cause, metadata),
        "startedAt": timestamp(now),
        "outcome": str(Outcome.PROGRESSING),
    }


def _superseded(former: Sequence[Entry], now: datetime) -> list[Entry]:
    """Close what never came to an end."""
    if not former or former[0]["outcome"] != Outcome.PROGRESSING:
        return list(former)
    end = {"outcome": str(Outcome.SUPERSEDED), "finishedAt": timestamp(now)}
    return [{**former[0], **end}, *former[1:]]


def _judged(newest: Entry, available: Finding, now: datetime) -> Entry:
    """Say what became of it. One that has once served is a success, whatever comes later."""
    if newest["outcome"] == Outcome.SUCCEEDED:
        return newest
    open_ = {key: value for key, value in newest.items() if key not in {"finishedAt", "message"}}
    if available.outlook is Outlook.SETTLED:
        return {**open_, "outcome": str(Outcome.SUCCEEDED), "finishedAt": timestamp(now)}
    if available.outlook is not Outlook.STUCK:
        return {**open_, "outcome": str(Outcome.PROGRESSING)}
    told = {"outcome": str(Outcome.FAILED), "message": _why(available)}
    since = newest.get("finishedAt") or timestamp(now)
    return {**open_, **told, "finishedAt": since}


def _why(available: Finding) -> str:
    condition = available.decisive
    return f"{condition.reason}: {condition.message}"[:MESSAGE_LENGTH]


def _cause(running: Release, before: Entry | None) -> RevisionCause:
    if before is None:
        return RevisionCause.EDIT
    models = [model.to_dict() for model in running.models]
    asked = (_references(models), running.runtimes().get("profile"))
    if asked != (_references(before["models"]), before.get("profile")):
        return RevisionCause.EDIT
    if models != before["models"]:
        return RevisionCause.ALIAS_MOVED
    return RevisionCause.UPDATE if running.rebuild is None else RevisionCause.REBUILD


def _references(models: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Give what a spec says of these models: the version only where it is pinned."""
    return [
        (model["role"], model["name"], model.get("alias") or f"version {model['version']}")
        for model in models
    ]


def _requester(cause: RevisionCause, metadata: Metadata) -> str:
    if cause is RevisionCause.ALIAS_MOVED:
        return REGISTRY
    asking = [
        entry
        for entry in metadata.managed_fields
        if not entry.get("subresource")
        and any(holds(entry.get("fieldsV1") or {}, path) for path in _ASKED_BY[cause])
    ]
    latest = max(asking, key=lambda entry: entry.get("time") or "", default={})
    manager: str = latest.get("manager") or ("unknown" if cause is RevisionCause.EDIT else OPERATOR)
    return manager


def holds(fields: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Tell whether managed fields have what a path leads to."""
    for step in path:
        if step not in fields:
            return False
        fields = fields[step]
    return True
