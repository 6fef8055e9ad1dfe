from typing import Any

import pytest
from modelops_operator.core.events import events

from tests.core.simulation import condition

pytestmark = pytest.mark.unit


def status(*conditions: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    return {"conditions": [condition(*said, f"why {said[2]}") for said in conditions], **more}


def told(previous: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in events(previous, new)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [("Ready", "True", "Serving")], [("Normal", "Serving")]),
        (
            [("Ready", "Unknown", "Progressing")],
            [("Ready", "True", "Serving")],
            [("Normal", "Serving")],
        ),
        ([("Ready", "True", "Serving")], [("Ready", "True", "Serving")], []),
        ([], [("Ready", "False", "Building"), ("Reconciling", "True", "Building")], []),
        ([], [("ModelsResolved", "Unknown", "ModelRegistryUnreachable")], []),
        (
            [],
            [
                ("Available", "False", "PodsCrashing"),
                ("Ready", "False", "PodsCrashing"),
                ("Stalled", "True", "PodsCrashing"),
            ],
            [("Warning", "PodsCrashing")],
        ),
        ([], [("Available", "False", "NotDeployed")], []),
        ([("Available", "True", "A")], [("Available", "False", "Scaling")], []),
        (
            [("DriftDetected", "False", "NoDrift")],
            [("DriftDetected", "True", "DriftAlert")],
            [("Warning", "DriftAlert")],
        ),
        (
            [("DriftDetected", "True", "DriftAlert")],
            [("DriftDetected", "False", "NoDrift")],
            [("Normal", "NoDrift")],
        ),
        ([("DriftDetected", "Unknown", "NoTraffic")], [("DriftDetected", "False", "NoDrift")], []),
        (
            [("DriftDetected", "False", "NoDrift")],
            [("DriftDetected", "False", "DriftWarning")],
            [("Warning", "DriftWarning")],
        ),
        (
            [("OutliersDetected", "True", "OutliersAlert")],
            [("OutliersDetected", "False", "OutliersWarning")],
            [("Normal", "OutliersWarning")],
        ),
        (
            [("MonitoringHealthy", "Unknown", "AwaitingTelemetry")],
            [("MonitoringHealthy", "False", "NoTelemetry")],
            [("Warning", "NoTelemetry")],
        ),
        (
            [("MonitoringHealthy", "False", "NoTelemetry")],
            [("MonitoringHealthy", "True", "Receiving")],
            [("Normal", "Receiving")],
        ),
        ([("MonitoringHealthy", "Unknown", "A")], [("MonitoringHealthy", "True", "Receiving")], []),
        (
            [("ServiceHealthy", "True", "WithinObjectives")],
            [("ServiceHealthy", "False", "ErrorRateHigh")],
            [("Warning", "ErrorRateHigh")],
        ),
        (
            [("ServiceHealthy", "False", "ErrorRateHigh")],
            [("ServiceHealthy", "True", "WithinObjectives")],
            [("Normal", "WithinObjectives")],
        ),
        (
            [("ServiceHealthy", "False", "ErrorRateHigh")],
            [("ServiceHealthy", "Unknown", "NoTraffic")],
            [],
        ),
        ([("Stalled", "True", "AliasNotFound")], [], []),
        ([("Stalled", "True", "A")], [("Stalled", "True", "B")], [("Warning", "B")]),
    ],
)
def test_transitions_are_told(
    before: list[tuple[str, str, str]],
    after: list[tuple[str, str, str]],
    expected: list[tuple[str, str]],
) -> None:
    assert told(status(*before), status(*after)) == expected


def test_a_new_revision_is_told_with_its_models() -> None:
    new = status(revision="b", models=[{"name": "employment", "version": "13"}])
    (event,) = events(status(revision="a"), new)
    assert (event.type, event.reason) == ("Normal", "RevisionChanged")
    assert event.message == "revision b, in place of a: employment 13"
    assert events(new, new) == ()
    assert [event.message for event in events({}, new)] == ["revision b: employment 13"]


def test_an_event_is_short_enough_for_the_api_server() -> None:
    long = status(("Stalled", "True", "Long"))
    long["conditions"][0]["message"] = "é" * 4000
    (event,) = events({}, long)
    assert len(event.message.encode()) <= 1024
