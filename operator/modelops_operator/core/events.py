"""Events: what happened between the former status and the new one, told once."""

from collections.abc import Iterator, Mapping
from typing import Any

from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.reasons import Reason
from modelops_operator.core.findings import bounded
from modelops_operator.core.state import Event, Manifest

GOOD = frozenset(
    {
        ConditionType.MODELS_RESOLVED,
        ConditionType.IMAGE_READY,
        ConditionType.IMAGE_VERIFIED,
        ConditionType.READY,
    },
)
"""Worth an Event when they become True."""
BAD = frozenset(
    {ConditionType.STALLED, ConditionType.DRIFT_DETECTED, ConditionType.OUTLIERS_DETECTED}
)
"""Worth a warning when they become True."""
HEALTHY = frozenset({ConditionType.MONITORING_HEALTHY, ConditionType.SERVICE_HEALTHY})
NEEDED = HEALTHY | {ConditionType.IMAGE_VERIFIED, ConditionType.AVAILABLE}
"""Worth a warning when they become False."""
RECOVERING: Mapping[str, str] = {
    ConditionType.DRIFT_DETECTED: "False",
    ConditionType.OUTLIERS_DETECTED: "False",
    **dict.fromkeys(HEALTHY, "True"),
}
"""Worth an Event when they are over: the status after the opposite one."""
WARNINGS = frozenset({Reason.DRIFT_WARNING, Reason.OUTLIERS_WARNING})
"""Worth a warning although nothing is True yet."""
NO_TROUBLE = frozenset({Reason.NOT_DEPLOYED, Reason.PODS_STARTING, Reason.SCALING})
"""Why pods may be missing without anything being wrong with them."""


def events(previous: Manifest, status: Manifest) -> tuple[Event, ...]:
    """Compare the former status with the new one.

    What merely goes on is not told, nor what is not known: when MLflow falls silent, thousands of
    objects would say so at once, and their conditions say it anyway.
    """
    told = {event.reason: event for event in _changes(previous, status)}
    return tuple(told.values())


def _changes(previous: Manifest, status: Manifest) -> Iterator[Event]:
    yield from _rollout(previous, status)
    before = _by_type(previous)
    for type_, condition in _by_type(status).items():
        if not _said_before(before.get(type_), condition):
            yield from _transition(type_, before.get(type_, {}), condition)


def _rollout(previous: Manifest, status: Manifest) -> Iterator[Event]:
    old, new = previous.get("revision"), status.get("revision")
    if new is None or new == old:
        return
    models = ", ".join(f"{model['name']} {model['version']}" for model in status["models"])
    origin = f", in place of {old}" if old else ""
    yield _event(
        "Normal",
        {"reason": "RevisionChanged", "message": f"revision {new}{origin}: {models}"},
    )


def _transition(
    type_: str, before: Mapping[str, Any], condition: Mapping[str, Any]
) -> Iterator[Event]:
    now, reason = condition["status"], condition["reason"]
    changed = {before.get("status"), now} == {"True", "False"}
    over = changed and RECOVERING.get(type_) == now
    trouble = now == "False" and type_ in NEEDED and reason not in NO_TROUBLE
    if trouble or (now == "True" and type_ in BAD) or (reason in WARNINGS and not over):
        yield _event("Warning", condition)
    elif over or (now == "True" and type_ in GOOD):
        yield _event("Normal", condition)


def _event(type_: str, condition: Mapping[str, Any]) -> Event:
    return Event(type=type_, reason=condition["reason"], message=bounded(condition["message"]))


def _said_before(before: Mapping[str, Any] | None, condition: Mapping[str, Any]) -> bool:
    keys = ("status", "reason")
    return before is not None and all(before.get(key) == condition[key] for key in keys)


def _by_type(status: Manifest) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions") or ()}
