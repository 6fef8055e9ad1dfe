"""Lines and watches for the tests of the health."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
from modelops_operator.api.resources import Monitoring
from modelops_operator.core.health.watch import OutlierReference, Reporter, Watch
from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_runtime.telemetry import FeatureCounts, Line
from numpy.typing import NDArray

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTES = 5
WINDOW = timedelta(minutes=MINUTES)
REVISION = "0123456789"


def line(
    *,
    window: int = 0,
    pod: str = "pod-a",
    worker: str = "w1",
    features: Mapping[int, Histogram] = MappingProxyType({}),
    **changes: Any,
) -> Line:
    """Give a line of the window with that number, without traffic unless told."""
    fields: dict[str, Any] = {
        "model": "staging/employment",
        "revision": REVISION,
        "pod": pod,
        "worker": worker,
        "edges": "e" * 16,
        "start": START + window * WINDOW,
        "seconds": MINUTES * 60,
        "features": tuple(FeatureCounts(index, each) for index, each in features.items()),
    }
    return Line(**{**fields, **changes})


def normal_profile(features: int, rows: int = 100_000) -> Profile:
    """Give a profile of independent standard normal features."""
    schema = Schema(
        inputs=tuple(Input(name=f"x{index}", kind="number") for index in range(features)),
        output=Output(kind="regressor", name="y"),
    )
    return Profile.fit(np.random.default_rng(1).standard_normal((rows, features)), schema)


def counted(profile: Profile, matrix: NDArray[np.float64]) -> Mapping[int, Histogram]:
    """Give the histograms of a matrix of rows by features."""
    return dict(enumerate(profile.count(matrix)))


def watch(**changes: Any) -> Watch:
    """Watch one pod, with the default thresholds and without detectors."""
    fields: dict[str, Any] = {
        "monitoring": Monitoring(window=WINDOW),
        "drift": None,
        "outliers": None,
        "reporters": (Reporter(pod="pod-a", since=START),),
    }
    return Watch(**{**fields, **changes})


REFERENCE = OutlierReference(hits=1000, rows=100_000)
