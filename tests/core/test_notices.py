"""Which changes of a status are told to the webhook, and what they say."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from modelops_operator.core.notices import alarms, notices

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def status(moment: datetime = NOW, /, **conditions: str) -> dict[str, Any]:
    return {
        "revision": "0123456789",
        "health": {"rows": 5},
        "conditions": [
            {
                "type": type_,
                "status": found,
                "reason": "Some",
                "message": "größer",
                "lastTransitionTime": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for type_, found in conditions.items()
        ],
    }


def live(before: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "staging", "name": "m", "uid": "u.1"}
    return {"metadata": metadata, "status": before}


def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """Give subject and kind of what is told, as the CloudEvents library reads it."""
    found = [read(each.body) for each in notices(live(before), after)]
    return [(event.get_subject(), event.get_type().rpartition(".")[2]) for event in found]


def read(body: bytes) -> BaseCloudEvent:
    headers = {"content-type": "application/cloudevents+json"}
    return from_structured_event(HTTPMessage(headers=headers, body=body))


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("DriftDetected", "False", "True"),
        ("OutliersDetected", "False", "True"),
        ("MonitoringHealthy", "True", "False"),
        ("ServiceHealthy", "True", "False"),
    ],
)
def test_an_alarm_is_told_and_what_ends_it(type_: str, good: str, bad: str) -> None:
    def told(before: str, after: str) -> list[tuple[str | None, str]]:
        return change(status(**{type_: before}), status(**{type_: after}))

    assert told(good, bad) == told("Unknown", bad) == [(type_, "alarm")]
    assert told(bad, good) == [(type_, "recovery")]
    assert told(bad, "Unknown") == [(type_, "unknown")]
    for before, after in (("Unknown", good), (good, "Unknown"), (good, good), (bad, bad)):
        assert told(before, after) == []
    assert change({}, status(**{type_: bad})) == [(type_, "alarm")]
    assert change({}, status(**{type_: good})) == []


def test_other_conditions_are_not_told() -> None:
    assert change(status(Ready="True"), status(Ready="False")) == []


def test_an_event_says_what_the_status_says() -> None:
    after = status(DriftDetected="True", Ready="True")
    (notice,) = notices(live({}), after)
    event = read(notice.body)
    assert event.get_id() == notice.id
    assert event.get_source() == "/apis/modelops.dev/namespaces/staging/modeldeployments/m"
    assert event.get_time() == NOW
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["condition"] == after["conditions"][0]
    assert (data["revision"], data["health"]) == ("0123456789", {"rows": 5})


def test_the_same_change_has_the_same_id_and_no_other_has() -> None:
    before = live({})
    (one,) = notices(before, status(DriftDetected="True"))
    assert one.id == notices(before, status(DriftDetected="True"))[0].id
    assert "." not in one.id
    others = [
        *notices(before, status(OutliersDetected="True")),
        *notices(before, status(NOW + timedelta(seconds=1), DriftDetected="True")),
        *notices(live(status(DriftDetected="True")), status(DriftDetected="False")),
    ]
    assert len({one.id, *(each.id for each in others)}) == 4


def test_alarms_are_told_again_by_the_same_id() -> None:
    after = status(DriftDetected="True", ServiceHealthy="True", MonitoringHealthy="Unknown")
    assert alarms(live(after), NOW - timedelta(hours=1)) == notices(live({}), after)
    assert alarms(live(after), NOW) == ()
    assert alarms(live({}), NOW) == ()
