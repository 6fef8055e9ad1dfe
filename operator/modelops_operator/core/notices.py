"""Alarms and recoveries as CloudEvents, for those who do not look into the cluster.

Each alarm is ended by one event: a recovery, or the news that nothing is known any more, as when
another revision is rolled out. What was never bad is not told.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from modelops_operator.api.conditions import ConditionType
from modelops_operator.core.state import Manifest

BAD: Final[Mapping[ConditionType, str]] = {
    ConditionType.DRIFT_DETECTED: "True",
    ConditionType.OUTLIERS_DETECTED: "True",
    ConditionType.MONITORING_HEALTHY: "False",
    ConditionType.SERVICE_HEALTHY: "False",
}
"""What is told of, and the status that is an alarm."""
_TYPE: Final = "dev.modelops.health"


@dataclass(frozen=True, slots=True)
class Notice:
    """An event that is to be sent."""

    id: str
    """The same whenever this change is told, and without a full stop."""
    body: bytes
    """A CloudEvent (https://github.com/cloudevents/spec, 1.0) in the structured mode of JSON."""


def notices(live: Manifest, status: Manifest) -> tuple[Notice, ...]:
    """Compare a deployment's status with the new one."""
    before = {each["type"]: each["status"] for each in _watched(live.get("status") or {})}
    return tuple(
        _notice(live, status, each)
        for each in _watched(status)
        if each["status"] != (was := before.get(each["type"]))
        and BAD[each["type"]] in {each["status"], was}
    )


def alarms(live: Manifest, since: datetime) -> tuple[Notice, ...]:
    """Tell again what has become bad since that moment, and still is."""
    status = live.get("status") or {}
    return tuple(
        _notice(live, status, each)
        for each in _watched(status)
        if each["status"] == BAD[each["type"]]
        and datetime.fromisoformat(each["lastTransitionTime"]) > since
    )


def _watched(status: Manifest) -> Iterator[Mapping[str, Any]]:
    return (each for each in status.get("conditions") or () if each["type"] in BAD)


def _notice(live: Manifest, status: Manifest, condition: Mapping[str, Any]) -> Notice:
    metadata, moment = live["metadata"], condition["lastTransitionTime"]
    namespace, name = metadata["namespace"], metadata["name"]
    parts = (metadata["uid"], condition["type"], condition["status"], moment)
    identity = "_".join(parts).replace(":", "").replace(".", "")
    event = {
        "specversion": "1.0",
        "id": identity,
        "source": f"/apis/modelops.dev/namespaces/{namespace}/modeldeployments/{name}",
        "type": f"{_TYPE}.{_change(condition)}",
        "subject": condition["type"],
        "time": moment,
        "datacontenttype": "application/json",
        "data": {
            "namespace": namespace,
            "name": name,
            "uid": metadata["uid"],
            "condition": dict(condition),
            "revision": status.get("revision"),
            "models": status.get("models") or [],
            "health": status.get("health") or {},
        },
    }
    return Notice(identity, json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())


def _change(condition: Mapping[str, Any]) -> str:
    if condition["status"] == BAD[condition["type"]]:
        return "alarm"
    return "unknown" if condition["status"] == "Unknown" else "recovery"
