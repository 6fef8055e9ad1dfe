"""Whose word a line of telemetry is: what every source holds a line against before it counts.

The origin of a line comes from the platform (the API server's pods, the columns that the node's
agent fills in), never from the line itself, so that a pod cannot speak for another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from modelops_runtime.telemetry import LONGEST_LINE as LONGEST_WRITTEN
from modelops_runtime.telemetry import Line, TelemetryError

from modelops_operator.adapters.telemetry import Target, believable

CONTAINER: Final = "server"
"""The container that serves, in every pod of ours."""
LONGEST_LINE: Final = 4 * LONGEST_WRITTEN
"""Characters of a line that is believed: ours are shorter, even when somebody wrote them anew."""
_REVISION_LABEL: Final = "modelops.dev/revision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A pod, and what it may speak for."""

    pod: str
    model: str
    """namespace/name of its ModelDeployment."""
    revision: str

    @classmethod
    def of(cls, target: Target, pod: Mapping[str, Any]) -> "Origin":
        """Read it from a pod as the API server tells it."""
        metadata = pod["metadata"]
        return cls(
            pod=metadata["name"],
            model=f"{target.namespace}/{target.name}",
            revision=metadata.get("labels", {}).get(_REVISION_LABEL, ""),
        )


@dataclass(slots=True)
class Haul:
    """What was found and not handed over yet."""

    lines: list[Line] = field(default_factory=list)
    damaged: int = 0
    foreign: int = 0

    def take(self, text: str | bytes, origin: Origin) -> Line | None:
        """Keep what this pod wrote if it is telemetry of its own; None if it is not kept."""
        try:
            line = Line.parse(text)
        except TelemetryError:
            self.damaged += 1
            return None
        if line is None:
            return None
        if len(text) > LONGEST_LINE or not believable(line):
            self.damaged += 1
            return None
        if (line.model, line.revision) != (origin.model, origin.revision):
            self.foreign += 1
            return None
        # The pod is who the platform says it is, whatever the line says.
        kept = line if line.pod == origin.pod else replace(line, pod=origin.pod)
        self.lines.append(kept)
        return kept
