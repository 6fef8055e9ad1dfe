from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.maintenance import Day, MaintenanceWindow
from pydantic import ValidationError

pytestmark = pytest.mark.unit


def window(**fields: Any) -> MaintenanceWindow:
    return MaintenanceWindow.model_validate({"start": "02:30", "duration": "2h", **fields})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "now", "opens_in"),
    [
        ({}, "2026-03-04T02:30:00", "0h"),
        ({}, "2026-03-04T04:29:59", "0h"),
        ({}, "2026-03-04T04:30:00", "22h"),
        ({}, "2026-03-04T01:30:00", "1h"),
        ({"start": "23:00", "duration": "4h"}, "2026-03-04T01:00:00", "0h"),  # since yesterday
        ({"days": ["Sun"]}, "2026-03-04T02:30:00", "96h"),  # a Wednesday
        ({"days": ["Wed"]}, "2026-03-04T04:30:00", "166h"),
        ({"days": ["Tue"], "start": "23:00"}, "2026-03-04T00:30:00", "0h"),
        ({"timeZone": "Europe/Berlin"}, "2026-03-04T01:30:00", "0h"),
        ({"timeZone": "Europe/Berlin"}, "2026-07-04T00:30:00", "0h"),  # summer time
        ({"timeZone": "America/Los_Angeles", "days": ["Tue"]}, "2026-03-03T10:30:00", "0h"),
    ],
)
def test_it_tells_when_it_opens(fields: dict[str, Any], now: str, opens_in: str) -> None:
    hours = timedelta(hours=int(opens_in.removesuffix("h")))
    assert window(**fields).opens_in(at(now)) == hours


def test_who_begins_later_ends_with_the_others() -> None:
    delay = timedelta(minutes=30)
    assert window().opens_in(at("2026-03-04T02:45:00"), delay) == timedelta(minutes=15)
    assert window().opens_in(at("2026-03-04T03:00:00"), delay) == timedelta()
    assert window().opens_in(at("2026-03-04T04:30:00"), delay) == timedelta(hours=22, minutes=30)


@given(
    now=st.timedeltas(timedelta(), timedelta(days=730)).map(at("2026-01-01").__add__),
    days=st.none() | st.sets(st.sampled_from(Day), min_size=1),
    start=st.times().map(lambda time: f"{time:%H:%M}"),
    zone=st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kolkata"]),
)
def test_it_opens_within_a_week_and_is_open_then(
    now: datetime, days: set[Day] | None, start: str, zone: str
) -> None:
    open_ = window(days=None if days is None else sorted(days), start=start, timeZone=zone)
    opens_in = open_.opens_in(now)
    assert timedelta() <= opens_in <= timedelta(days=7)
    assert open_.opens_in(now + opens_in) == timedelta()


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be a time zone such as Europe/Berlin"):
        window(timeZone="Europe/Atlantis")
