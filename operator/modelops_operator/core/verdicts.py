"""What the monitoring says, as the status shows it.

Evidence moves with every window. It is written only when somebody would want to know: when a
verdict, a severity or a value rounded to two digits changes, and else once an hour. Live figures
are metrics.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.facts import Role
from modelops_operator.api.reasons import Reason
from modelops_operator.core.state import Health, Manifest

EVIDENCE_AGE = timedelta(hours=1)
"""Evidence older than this is written anew, even if it says the same."""
MEMORY = timedelta(minutes=75)
"""How long the last verdict stands after a restart of the operator, before anything is evaluated:
evidence may be an hour old without being out of date."""

WATCHED_BY: Mapping[ConditionType, Role] = {
    ConditionType.DRIFT_DETECTED: Role.DRIFT,
    ConditionType.OUTLIERS_DETECTED: Role.OUTLIER,
}
"""The verdicts on the traffic, and the detector that each of them needs: pods report their requests
without any."""
TYPES = (*WATCHED_BY, ConditionType.MONITORING_HEALTHY, ConditionType.SERVICE_HEALTHY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Conditions and evidence, ready for the status."""

    conditions: tuple[Condition, ...]
    evidence: Mapping[str, Any]


def verdicts(
    health: Health | None, roles: AbstractSet[Role], previous: Manifest, now: datetime
) -> Verdicts:
    """Merge the evaluation with what the status said before."""
    before = _before(previous)
    written = previous.get("health") or {}
    if health is None:
        kept = {type_: _remembered(before.get(type_), written, now) for type_ in TYPES}
        return Verdicts(conditions=_complete(kept, roles), evidence=written)
    found = _complete({condition.type: condition for condition in health.conditions}, roles)
    evidence = health.evidence
    if _noteworthy(found, evidence, before, written):
        return Verdicts(conditions=found, evidence=evidence)
    kept = {type_: before.get(type_) for type_ in TYPES}
    return Verdicts(conditions=_complete(kept, roles), evidence=written)


def _complete(
    found: Mapping[ConditionType, Condition | None], roles: AbstractSet[Role]
) -> tuple[Condition, ...]:
    return tuple(_verdict(type_, found.get(type_), roles) for type_ in TYPES)


def _verdict(type_: ConditionType, found: Condition | None, roles: AbstractSet[Role]) -> Condition:
    watcher = WATCHED_BY.get(type_)
    if watcher is not None and watcher not in roles:
        message = f"no detector is given in spec.models.{watcher}"
        return Condition(type_, "Unknown", Reason.NO_DETECTOR, message)
    if found is None or found.reason == Reason.NO_DETECTOR:
        message = "no window has been evaluated yet"
        return Condition(type_, "Unknown", Reason.AWAITING_TELEMETRY, message)
    return found


def _remembered(
    condition: Condition | None, evidence: Mapping[str, Any], now: datetime
) -> Condition | None:
    if condition is None or condition.status == "Unknown":
        return condition
    end = _window_end(evidence)
    return condition if end is not None and now - end <= MEMORY else None


def _before(previous: Manifest) -> Mapping[ConditionType, Condition]:
    return {
        ConditionType(old["type"]): Condition(
            ConditionType(old["type"]), old["status"], old["reason"], old["message"]
        )
        for old in previous.get("conditions") or ()
        if old["type"] in TYPES
    }


def _noteworthy(
    found: Iterable[Condition],
    evidence: Mapping[str, Any],
    before: Mapping[ConditionType, Condition],
    written: Mapping[str, Any],
) -> bool:
    if any(_said(condition) != _said(before.get(condition.type)) for condition in found):
        return True
    if _figures(evidence) != _figures(written):
        return True
    new, old = _window_end(evidence), _window_end(written)
    return new is not None and (old is None or new - old >= EVIDENCE_AGE)


def _said(condition: Condition | None) -> tuple[str, str] | None:
    return None if condition is None else (condition.status, str(condition.reason))


def _figures(evidence: Mapping[str, Any]) -> tuple[Any, ...]:
    drift, outliers = evidence.get("drift") or {}, evidence.get("outliers") or {}
    service = evidence.get("service") or {}
    return (
        bool(evidence),
        drift.get("severity"),
        _rounded(drift.get("value")),
        _named(drift.get("features") or ()),
        outliers.get("severity"),
        _rounded(outliers.get("rate")),
        _rounded(service.get("errorRate")),
        service.get("restarts"),
        service.get("pending"),
    )


def _named(features: Sequence[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    """Name the features that drift; the order of the others is noise."""
    return frozenset(
        (feature["name"], feature["severity"])
        for feature in features
        if feature.get("severity") not in {None, "None"}
    )


def _rounded(value: str | None) -> float | None:
    try:
        return None if value is None else round(float(value), 2)
    except ValueError:
        return None


def _window_end(evidence: Mapping[str, Any]) -> datetime | None:
    text = (evidence.get("window") or {}).get("end")
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
