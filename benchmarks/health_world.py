"""What the benchmarks of the health share: a model with a past, its lines, and who judges them.

Thirty features, normal, with a daily rhythm of 0.2 standard deviations, each with a phase of its
own. The reference is of four weeks, and its rows' times are told, so that the profile says how far
each feature moves by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.watch import OutlierReference, Reporter, Watch
from modelops_operator.core.health.windows import History
from modelops_operator.core.state import Health
from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_runtime.telemetry import FeatureCounts, Line
from modelops_training.variation import groups_of, varied
from numpy.typing import NDArray
from scipy.stats import norm

Rows = NDArray[np.float64]

FEATURES: Final = 30
RHYTHM: Final = 0.2
"""Standard deviations."""
WINDOW: Final = timedelta(minutes=5)
DAY: Final = timedelta(days=1) // WINDOW
"""Windows in a day."""
DAYS: Final = 28
"""Of the reference."""
REFERENCE_ROWS: Final = 100_000
PEERS_REFERENCE: Final = 10_000
"""Rows of the reference that peers get."""
START: Final = datetime(2026, 3, 1, tzinfo=UTC)
SETTLE: Final = timedelta(seconds=5)
OUTLIERS: Final = OutlierReference(hits=1000, rows=REFERENCE_ROWS)


def trained(rows: Rows, windows: NDArray[np.int64], inputs: Sequence[Input]) -> Profile:
    """Give the profile of rows, shape (n, inputs), of which is told in which window each was."""
    moments = pd.Timestamp(START) + pd.to_timedelta(windows * WINDOW.total_seconds(), unit="s")
    profile = Profile.fit(rows, Schema(tuple(inputs), Output(kind="regressor", name="y")))
    return varied(profile, rows, groups_of(moments, len(rows)))


@dataclass(frozen=True, slots=True)
class World:
    """What the model was trained on."""

    profile: Profile
    phases: Rows
    sample: Rows
    """Rows of the reference, of shape (PEERS_REFERENCE, FEATURES)."""

    @classmethod
    def make(cls, random: np.random.Generator) -> "World":
        """Train."""
        phases = random.uniform(0, 1, FEATURES)
        phases[0] = 0.0  # at midnight, drift alone shifts the feature that is to drift
        windows = random.integers(0, DAYS * DAY, REFERENCE_ROWS)
        rows = random.standard_normal((REFERENCE_ROWS, FEATURES))
        rows += RHYTHM * np.sin(2 * np.pi * (windows[:, np.newaxis] / DAY + phases))
        inputs = [Input(name=f"x{index}", kind="number") for index in range(FEATURES)]
        return cls(trained(rows, windows, inputs), phases, rows[:PEERS_REFERENCE].copy())

    def shift(self, window: int) -> Rows:
        """Give what the rhythm adds to each feature in a window."""
        shift: Rows = RHYTHM * np.sin(2 * np.pi * (window / DAY + self.phases))
        return shift

    def shares(self, window: int) -> Rows:
        """Give the exact shares of the bins, of shape (FEATURES, bins)."""
        edges = np.array([feature.edges for feature in self.profile.features])
        below = norm.cdf(edges - self.shift(window)[:, np.newaxis])
        ends = np.zeros((FEATURES, 1)), np.ones((FEATURES, 1))
        shares: Rows = np.diff(np.concatenate((ends[0], below, ends[1]), axis=1))
        return shares


def line(window: int, rows: int, profile: Profile, counted: Sequence[Histogram]) -> Line:
    return Line(
        model="bench/model",
        revision="r",
        pod="pod",
        worker="w",
        edges=profile.edges_hash,
        start=START + window * WINDOW,
        seconds=int(WINDOW.total_seconds()),
        rows=rows,
        requests=rows,
        features=tuple(FeatureCounts(index, each) for index, each in enumerate(counted)),
    )


class Judge:
    """Takes lines window after window, as the operator does, and gives the verdicts."""

    def __init__(self, profile: Profile, outliers: OutlierReference = OUTLIERS) -> None:
        self._history = History("r", settle=SETTLE)
        self._watch = Watch(
            monitoring=Monitoring(window=WINDOW),
            drift=profile,
            outliers=outliers,
            reporters=(Reporter(pod="pod", since=START),),
        )

    def health(self, told: Line) -> Health:
        """Judge after another line."""
        now = told.end + SETTLE
        self._history.add([told], now)
        return evaluate(self._history, self._watch, now)

    def reasons(self, told: Line) -> Mapping[str, str]:
        """Give each condition's reason after another line."""
        return {each.type: str(each.reason) for each in self.health(told).conditions}
