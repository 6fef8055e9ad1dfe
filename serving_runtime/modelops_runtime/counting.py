"""Counts what one worker saw in one window. No clock, no thread, no output: see `recording`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.schema import Matrix
from modelops_runtime.telemetry import (
    BUSY,
    FeatureCounts,
    Line,
    Verdict,
    add_verdicts,
    latency_bin,
)


@dataclass(slots=True, eq=False)
class Block:
    """Requests of one window that are not counted yet."""

    start: int
    """Of the window, in seconds since the epoch."""
    matrices: list[Matrix] = field(default_factory=list)
    """Rows encoded for the reference profile; none without one."""
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[Sequence[object]] = field(default_factory=list)
    """Predicted classes; none where the reference profile has none."""
    durations: list[float] = field(default_factory=list)
    """Seconds, of every request, those refused included."""
    rows: int = 0
    outliers: int = 0
    client_errors: int = 0
    server_errors: int = 0
    turned_away: int = 0
    """Of the server errors, those that told clients to come again."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """What detectors of others found, by role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who counts."""

    model: str
    """namespace/name of the ModelDeployment."""
    revision: str
    pod: str
    seconds: int
    """Length of the windows."""
    form: str
    """The form of the model that answers."""


class Window:
    """What was counted since its start."""

    def __init__(
        self, start: int, profile: Profile | None, hidden: frozenset[int] = frozenset()
    ) -> None:
        """`hidden` are places of features that the line is not to tell."""
        self.start = start
        self._profile = profile
        self._hidden = hidden
        self._features: Sequence[Histogram] = ()
        self._scores: Histogram | None = None
        self._labels: Histogram | None = None
        self._latency: Counter[int] = Counter()
        self.totals = Block(start)
        """Sums of the plain numbers; its lists stay empty."""

    def add(self, block: Block) -> None:
        """Count what is in a block of this window."""
        total = self.totals
        total.rows += block.rows
        total.outliers += block.outliers
        total.client_errors += block.client_errors
        total.server_errors += block.server_errors
        total.turned_away += block.turned_away
        total.verdicts = add_verdicts(total.verdicts, block.verdicts)
        self._latency.update(latency_bin(each) for each in block.durations)
        profile = self._profile
        if profile is None:
            return
        if block.matrices:
            self._features = _sum(self._features, profile.count(np.concatenate(block.matrices)))
        if block.scores and profile.scores is not None:
            found = profile.scores.count(np.concatenate(block.scores))
            self._scores = found if self._scores is None else self._scores + found
        if block.labels and profile.labels is not None:
            found = profile.labels.tally([each for some in block.labels for each in some])
            self._labels = found if self._labels is None else self._labels + found

    @property
    def requests(self) -> int:
        """Requests, those refused included."""
        return self._latency.total()

    def line(self, identity: Identity, worker: str) -> Line:
        """Give the line of telemetry; without rows it has no histograms."""
        total = self.totals
        errors = {
            "4xx": total.client_errors,
            "5xx": total.server_errors,
            BUSY: total.turned_away,
        }
        return Line(
            model=identity.model,
            revision=identity.revision,
            edges="" if self._profile is None else self._profile.edges_hash,
            start=datetime.fromtimestamp(self.start, UTC),
            seconds=identity.seconds,
            pod=identity.pod,
            worker=worker,
            form=identity.form,
            rows=total.rows,
            outliers=total.outliers,
            requests=self.requests,
            errors={name: count for name, count in errors.items() if count},
            latency=tuple(sorted(self._latency.items())),
            scores=self._scores,
            labels=self._labels,
            verdicts=total.verdicts,
            features=tuple(
                FeatureCounts(index, histogram)
                for index, histogram in enumerate(self._features)
                if index not in self._hidden
            ),
        )


def _sum(one: Sequence[Histogram], other: Sequence[Histogram]) -> Sequence[Histogram]:
    if not one:
        return other
    return [first + second for first, second in zip(one, other, strict=True)]
