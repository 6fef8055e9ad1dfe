"""When pods may be replaced only because the operator would generate other ones by now."""

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, field_validator

from modelops_operator.api.schema import DurationBetween, Fields

_LOOK_AHEAD = 8
"""Days within which a window opens, whatever its days are, and one more for the time zone."""


class Day(StrEnum):
    """A day of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


class MaintenanceWindow(Fields):
    """A time of the week that comes again and again."""

    days: (
        Annotated[
            tuple[Day, ...],
            Field(min_length=1, max_length=7, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Days on which it begins: Mon, Tue, Wed, Thu, Fri, Sat, Sun; every day if not given."""
    start: Annotated[
        str,
        StringConstraints(min_length=5, max_length=5, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"),
    ]
    """When it begins, such as "02:30", in quotes."""
    duration: Annotated[timedelta, DurationBetween("15m", "24h")]
    """How long it lasts, such as 2h. Deployments begin one after the other in its first half; a
    rollout that has begun goes on after its end."""
    time_zone: Annotated[
        str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")
    ] = "UTC"
    """Time zone of days and start, such as Europe/Berlin; UTC if not given."""

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("must be a time zone such as Europe/Berlin") from error
        return name

    def opens_in(self, now: datetime, delay: timedelta = timedelta()) -> timedelta:
        """Tell how long it takes until the window is open; nothing while it is.

        `delay` is how much later than the others one begins; it is less than the duration.
        """
        today = now.astimezone(ZoneInfo(self.time_zone)).date()
        days = (today + timedelta(days=number) for number in range(-1, _LOOK_AHEAD))
        starts = [self._start(day) for day in days if self._begins_on(day)]
        return min(
            max(start + delay - now, timedelta()) for start in starts if start + self.duration > now
        )

    def _begins_on(self, day: date) -> bool:
        return self.days is None or list(Day)[day.weekday()] in self.days

    def _start(self, day: date) -> datetime:
        local = datetime.combine(day, time.fromisoformat(self.start), ZoneInfo(self.time_zone))
        return local.astimezone(UTC)
