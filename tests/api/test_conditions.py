"""Conditions and their reasons."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from modelops_operator.api.conditions import (
    LONGEST_MESSAGE,
    Condition,
    ConditionType,
    merge_conditions,
)
from modelops_operator.api.reasons import Reason

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE = "2026-01-01T00:00:00Z"


def merge(previous: list[dict[str, Any]], message: str = "new") -> dict[str, Any]:
    wanted = Condition(ConditionType.READY, "True", Reason.SERVING, message)
    (merged,) = merge_conditions(previous, [wanted], generation=2, now=NOW)
    return merged


def test_the_time_moves_with_the_status_only() -> None:
    old = {"type": "Ready", "status": "True", "lastTransitionTime": BEFORE, "reason": "Other"}

    assert merge([old])["lastTransitionTime"] == BEFORE
    assert merge([old | {"status": "False"}])["lastTransitionTime"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("old", [{}, {"type": "Ready", "status": "True"}])
def test_a_damaged_predecessor_is_replaced(old: dict[str, Any]) -> None:
    assert merge([old])["lastTransitionTime"] == "2026-01-02T03:04:05Z"


def test_types_that_are_not_wanted_disappear() -> None:
    assert merge([{"type": "Stalled", "status": "True"}])["type"] == "Ready"


def test_a_message_fits_into_the_api() -> None:
    message = merge([], message="e" * 100_000)["message"]
    assert len(message) == LONGEST_MESSAGE
    assert message.endswith("…")


def test_reasons_are_words_for_scripts() -> None:
    assert all(re.fullmatch(r"[A-Z][A-Za-z]*", reason) for reason in Reason)
    assert len({str(reason) for reason in Reason}) == len(Reason)
