"""A fault of our own in an object's status."""

from datetime import UTC, datetime
from typing import Any

import pytest
from modelops_operator.shell.faults import status_with_fault

pytestmark = pytest.mark.unit

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAULT = ZeroDivisionError("oh")


def live(generation: int, status: dict[str, Any] | None) -> dict[str, Any]:
    return {"metadata": {"generation": generation}, "status": status}


def told(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def stored(*conditions: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "observedGeneration": 1,
        "url": "http://somewhere",
        "conditions": [
            {
                "type": type_,
                "status": status,
                "reason": reason,
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for type_, status, reason in conditions
        ],
    }


@pytest.mark.parametrize("status", [None, {"observedGeneration": -1}])
def test_a_new_object_is_not_left_without_a_word(status: dict[str, Any] | None) -> None:
    found = status_with_fault(live(1, status), FAULT, NOON)
    assert found["observedGeneration"] == 1
    assert told(found) == {
        "Ready": ("Unknown", "InternalError"),
        "Reconciling": ("True", "InternalError"),
    }
    assert "ZeroDivisionError: oh" in found["conditions"][0]["message"]


def test_what_serves_goes_on_being_ready() -> None:
    status = stored(("Ready", "True", "Serving"), ("Stalled", "True", "ModelNotFound"))
    found = status_with_fault(live(1, status), FAULT, NOON)
    assert found["url"] == "http://somewhere"
    assert told(found) == {
        "Ready": ("True", "Serving"),
        "Reconciling": ("True", "InternalError"),
    }


def test_nobody_knows_whether_a_new_spec_is_ready() -> None:
    found = status_with_fault(live(2, stored(("Ready", "True", "Serving"))), FAULT, NOON)
    assert told(found)["Ready"] == ("Unknown", "InternalError")


def test_the_same_fault_again_changes_nothing() -> None:
    once = status_with_fault(live(1, None), FAULT, NOON)
    again = status_with_fault(live(1, once), FAULT, datetime.now(UTC))
    assert again == once
