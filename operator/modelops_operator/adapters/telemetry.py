"""Where telemetry comes from: one Protocol, its implementations beside it.

A source is asked for the whole fleet at once, at every `config.monitoring.interval`, and hands
over what is new. It keeps no windows and judges nothing: that is `core.health`. The loop is

    readings = await source.collect(targets, now)
    for key in keys:
        reading = readings.get(key, Reading())
        store.add(key, reading.lines, now, damaged=reading.damaged)  # core.health.windows
        history = store.history(key, running_revision)
        standing = renewed(standing, history, watch, now)            # core.health.evaluate
    store.retain(keys)

where `watch` carries `reading.failure`. After a restart the first `collect` hands over what is
still to be had, so that nothing needs to be saved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from modelops_runtime.telemetry import Line

from modelops_operator.api.facts import Failure

LARGEST_COUNT: Final = 10**12
"""No window of one worker has as many of anything: sums of such counts fit into 64 bits."""
LONGEST_WINDOW: Final = timedelta(days=1)
Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC) - LONGEST_WINDOW
"""So that the end of a window can be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One ModelDeployment to read the telemetry of."""

    namespace: str
    name: str
    pods: Sequence[Mapping[str, Any]] = ()
    """Its live pods as the API server tells them, of whatever revision, terminating ones
    included: a pod's last line is written while it terminates."""
    window: timedelta = timedelta(minutes=5)
    """How often each of its pods reports."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one `collect` brought for one target."""

    lines: tuple[Line, ...] = ()
    """New lines, each handed over once, of whatever revision. `Line.pod` and the model are true:
    what a pod says of others is left out."""
    failure: Failure | None = None
    """What could not be read, even if the rest could. It will be read the next time."""
    damaged: int = 0
    """Lines that look like telemetry and cannot be understood."""
    foreign: int = 0
    """Lines that speak for another model or revision than their pod's."""

    @property
    def news(self) -> bool:
        """Whether any line came."""
        return bool(self.lines or self.damaged or self.foreign)


class TelemetrySource(Protocol):
    """A place that the pods' telemetry can be read from."""

    @property
    def place(self) -> str:
        """Its name, for the status."""

    @property
    def settle(self) -> timedelta:
        """How long after the end of a window its lines may still be on their way."""

    async def collect(self, targets: Sequence[Target], now: datetime) -> Mapping[Key, Reading]:
        """Read what is new for every target; one without a reading has nothing to tell.

        While nothing is other than before, it is given the very same targets. Never raises: a
        failure is part of a reading.
        """

    async def close(self) -> None:
        """Give back what is held. The client is the caller's."""


def believable(line: Line) -> bool:
    """Say whether the figures of a line can be true; what is not is counted as damaged."""
    histograms = [each.histogram for each in line.features]
    histograms += [each for each in (line.scores, line.labels) if each is not None]
    counts = (
        line.rows,
        line.requests,
        line.periods,
        *line.errors.values(),
        *(number for _, number in line.latency),
        *(each.total for each in histograms),
    )
    return (
        max(counts) <= LARGEST_COUNT
        and timedelta(seconds=min(line.seconds, LARGEST_COUNT)) <= LONGEST_WINDOW
        and line.start <= _END_OF_TIME
    )
