"""What the status says when the operator itself fails: nobody shall wait for nothing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelops_operator.api.conditions import Condition, ConditionType, merge_conditions
from modelops_operator.api.reasons import Reason
from modelops_operator.shell.cache import Manifest

_ABNORMAL = frozenset({ConditionType.RECONCILING, ConditionType.STALLED})


def status_with_fault(live: Manifest, error: Exception, now: datetime) -> dict[str, Any]:
    """Give the status that was written last, with word of a fault of our own.

    What was known stays, but for Ready where the spec is a new one: nobody has looked at it.
    """
    previous: Mapping[str, Any] = live.get("status") or {}
    generation = live["metadata"]["generation"]
    told = (
        f"the operator failed by a fault of its own ({type(error).__name__}: {error});"
        " its log has the details, and it tries again"
    )
    known = {one["type"]: one for one in previous.get("conditions") or ()}
    if previous.get("observedGeneration") != generation:
        known.pop(ConditionType.READY, None)
    kept = [_condition(one) for name, one in known.items() if name not in _ABNORMAL]
    fault = (Reason.INTERNAL_ERROR, told)
    if ConditionType.READY not in known:
        kept.append(Condition(ConditionType.READY, "Unknown", *fault))
    kept.append(Condition(ConditionType.RECONCILING, "True", *fault))
    conditions = merge_conditions(
        previous.get("conditions") or (), kept, generation=generation, now=now
    )
    return {**previous, "observedGeneration": generation, "conditions": conditions}


def _condition(stored: Mapping[str, Any]) -> Condition:
    return Condition(
        ConditionType(stored["type"]), stored["status"], stored["reason"], stored["message"]
    )
