from datetime import timedelta

import pytest
from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.core.findings import Finding, Outlook
from modelops_operator.core.readiness import Serving, at_rest, overall, soonest

pytestmark = pytest.mark.unit


def found(outlook: Outlook, reason: str, again: timedelta | None = None) -> Finding:
    condition = Condition(ConditionType.IMAGE_READY, "Unknown", reason, f"message of {reason}")
    return Finding(condition=condition, outlook=outlook, again=again)


FINE = found(Outlook.SETTLED, "Fine")
BUSY = found(Outlook.UNDERWAY, "Busy")
STUCK = found(Outlook.STUCK, "Stuck")

NOTHING = Serving(pods=0, told="")
OLD = Serving(pods=1, told="revision a", reached=False)
SAME = Serving(pods=1, told="revision a", reached=True)
PARKED = Serving(pods=0, told="", parked=True)


@pytest.mark.parametrize(
    ("findings", "serving", "expected"),
    [
        ([FINE, FINE], SAME, [("Ready", "True", "Serving")]),
        ([FINE, FINE], OLD, [("Ready", "True", "Serving")]),
        ([FINE], PARKED, [("Ready", "True", "ScaledToZero")]),
        ([FINE, BUSY], NOTHING, [("Ready", "False", "Busy"), ("Reconciling", "True", "Busy")]),
        ([FINE, STUCK], NOTHING, [("Ready", "False", "Stuck"), ("Stalled", "True", "Stuck")]),
        (
            [FINE, BUSY],
            OLD,
            [("Ready", "Unknown", "Progressing"), ("Reconciling", "True", "Busy")],
        ),
        ([BUSY], SAME, [("Ready", "True", "Serving"), ("Reconciling", "True", "Busy")]),
        ([STUCK], OLD, [("Ready", "True", "Serving"), ("Stalled", "True", "Stuck")]),
        ([BUSY, STUCK], SAME, [("Ready", "True", "Serving"), ("Reconciling", "True", "Busy")]),
        ([STUCK, BUSY], SAME, [("Ready", "True", "Serving"), ("Stalled", "True", "Stuck")]),
    ],
)
def test_the_table_of_the_docstring(
    findings: list[Finding], serving: Serving, expected: list[tuple[str, str, str]]
) -> None:
    conditions = overall(findings, serving)
    assert [(said.type, said.status, said.reason) for said in conditions] == expected


@pytest.mark.parametrize(
    ("serving", "status", "told"),
    [
        (NOTHING, "False", "suspended; nothing serves"),
        (OLD, "True", "suspended; revision a serves"),
        (PARKED, "True", "suspended; spec.serving.replicas is 0: nothing serves, as asked for"),
    ],
)
def test_an_object_at_rest_tells_what_serves(serving: Serving, status: str, told: str) -> None:
    said = at_rest("Suspended", "suspended", serving)
    assert (said.type, said.status, said.reason, said.message) == (
        "Ready",
        status,
        "Suspended",
        told,
    )


def test_the_soonest_wins() -> None:
    late, soon = timedelta(seconds=9), timedelta(seconds=2)
    wanting = [FINE, found(Outlook.UNDERWAY, "a", late), found(Outlook.UNDERWAY, "b", soon)]
    assert soonest(wanting) == soon
    assert soonest([FINE, STUCK]) is None
