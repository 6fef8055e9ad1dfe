import copy
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any, Literal

import pytest
from modelops_operator.api.conditions import Condition, ConditionType, timestamp
from modelops_operator.api.facts import Role
from modelops_operator.core.state import Health
from modelops_operator.core.verdicts import verdicts

from tests.core.simulation import START

pytestmark = pytest.mark.unit

ALL = frozenset(Role)
DRIFT, OUTLIERS, HEALTHY, SERVICE = (
    ConditionType.DRIFT_DETECTED,
    ConditionType.OUTLIERS_DETECTED,
    ConditionType.MONITORING_HEALTHY,
    ConditionType.SERVICE_HEALTHY,
)


def evidence(minutes: int = 0, failed: str = "0.001", **drift: Any) -> dict[str, Any]:
    return {
        "window": {
            "start": timestamp(START + timedelta(minutes=minutes - 5)),
            "end": timestamp(START + timedelta(minutes=minutes)),
        },
        "rows": 15000 + minutes,
        "drift": {"severity": "None", "value": "0.031", "threshold": "0.25", "features": []}
        | drift,
        "outliers": {"severity": "None", "rate": "0.011", "reference": "0.010"},
        "service": {"requests": 900 + minutes, "errorRate": failed},
    }


def judged(
    figures: dict[str, Any],
    *,
    drift: Literal["True", "False", "Unknown"] = "False",
    reason: str = "NoDrift",
) -> Health:
    rows = figures.get("rows", 0)
    return Health.of(
        conditions=(
            Condition(DRIFT, drift, reason, f"of {rows} rows"),
            Condition(OUTLIERS, "False", "OutliersNormal", f"of {rows} rows"),
            Condition(HEALTHY, "True", "Receiving", f"{rows} rows"),
            Condition(SERVICE, "True", "WithinObjectives", f"{rows} requests"),
        ),
        evidence=figures,
    )


def written(health: Health) -> dict[str, Any]:
    """Give the status that such a verdict was written into."""
    conditions = [
        {
            "type": str(said.type),
            "status": said.status,
            "reason": said.reason,
            "message": said.message,
            "lastTransitionTime": timestamp(START),
        }
        for said in health.conditions
    ]
    conditions.append({"type": "Ready", "status": "True", "reason": "Serving", "message": ""})
    return {"conditions": conditions, "health": dict(health.evidence)}


BEFORE = written(judged(evidence()))


def said(
    health: Health | None,
    previous: dict[str, Any],
    roles: AbstractSet[Role] = ALL,
    minutes: int = 0,
) -> dict[str, tuple[str, str]]:
    found = verdicts(health, roles, previous, START + timedelta(minutes=minutes))
    return {condition.type: (condition.status, condition.reason) for condition in found.conditions}


WARNED = {"name": "AGEP", "psi": "0.12", "severity": "Warn"}
CALM = {"name": "SCHL", "psi": "0.01", "severity": "None"}


@pytest.mark.parametrize(
    ("case", "health", "is_written"),
    [
        ("the same", judged(evidence()), False),
        ("more rows of the same kind", judged(evidence(10)), False),
        ("a value that rounds to the same", judged(evidence(10, value="0.0349")), False),
        ("other calm features", judged(evidence(10, features=[CALM])), False),
        ("another value", judged(evidence(10, value="0.04")), True),
        ("a value that is gone", judged(evidence(10, value=None)), True),
        ("a value that is no number", judged(evidence(10, value="many")), True),
        ("a few more failures", judged(evidence(10, failed="0.004")), False),
        ("failures", judged(evidence(10, failed="0.04")), True),
        ("a severity", judged(evidence(10, severity="Warn")), True),
        ("a feature that drifts", judged(evidence(10, features=[WARNED])), True),
        ("a verdict", judged(evidence(10), drift="True", reason="DriftAlert"), True),
        ("a reason", judged(evidence(10), drift="Unknown", reason="NoTraffic"), True),
        ("no evidence", judged({}), True),
        ("an hour has passed", judged(evidence(60)), True),
    ],
)
def test_evidence_is_written_when_somebody_would_want_to_know(
    case: str,
    health: Health,
    is_written: bool,  # noqa: FBT001 - a table
) -> None:
    found = verdicts(health, ALL, BEFORE, START + timedelta(minutes=60))
    expected = health if is_written else judged(evidence())
    assert (found.evidence, found.conditions) == (expected.evidence, expected.conditions), case


def test_before_anything_is_evaluated_nothing_is_known() -> None:
    unknown = ("Unknown", "AwaitingTelemetry")
    assert said(None, {}) == dict.fromkeys((DRIFT, OUTLIERS, HEALTHY, SERVICE), unknown)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({Role.PREDICTOR}, ["NoDetector", "NoDetector", "Receiving", "WithinObjectives"]),
        ({Role.PREDICTOR, Role.DRIFT}, ["NoDrift", "NoDetector", "Receiving", "WithinObjectives"]),
        (
            {Role.PREDICTOR, Role.OUTLIER},
            ["NoDetector", "OutliersNormal", "Receiving", "WithinObjectives"],
        ),
    ],
)
def test_without_a_detector_there_is_no_verdict(
    roles: AbstractSet[Role], expected: list[str]
) -> None:
    for previous in ({}, BEFORE):
        found = said(judged(evidence()), previous, roles)
        assert [reason for _, reason in found.values()] == expected


def test_a_predictor_alone_is_not_judged() -> None:
    expected = dict.fromkeys((DRIFT, OUTLIERS), ("Unknown", "NoDetector"))
    # Its pods report their requests nevertheless.
    expected |= dict.fromkeys((HEALTHY, SERVICE), ("Unknown", "AwaitingTelemetry"))
    assert said(None, {}, {Role.PREDICTOR}) == expected
    told = verdicts(None, {Role.PREDICTOR}, {}, START).conditions
    assert (
        said(None, written(Health.of(conditions=told, evidence={})), {Role.PREDICTOR}) == expected
    )


def test_a_new_detector_is_waited_for() -> None:
    before = copy.deepcopy(BEFORE)
    before["conditions"][0] |= {"status": "Unknown", "reason": "NoDetector"}
    assert said(None, before)[DRIFT] == ("Unknown", "AwaitingTelemetry")


def test_after_a_restart_the_last_verdict_stands_for_as_long_as_it_may() -> None:
    before = written(judged(evidence(), drift="True", reason="DriftAlert"))
    assert said(None, before, minutes=70)[DRIFT] == ("True", "DriftAlert")
    assert said(None, before, minutes=80)[DRIFT] == ("Unknown", "AwaitingTelemetry")
    assert said(None, before, minutes=80)[HEALTHY] == ("Unknown", "AwaitingTelemetry")


@pytest.mark.parametrize("end", [None, "yesterday"])
def test_a_verdict_of_an_unknown_time_does_not_stand(end: str | None) -> None:
    before = copy.deepcopy(BEFORE)
    before["health"]["window"] = {"end": end}
    assert said(None, before)[DRIFT] == ("Unknown", "AwaitingTelemetry")


def test_what_was_unknown_before_a_restart_stays_as_it_was_told() -> None:
    before = written(judged({}, drift="Unknown", reason="NoTraffic"))
    assert said(None, before, minutes=999)[DRIFT] == ("Unknown", "NoTraffic")
