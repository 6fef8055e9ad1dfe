"""The figures behind a verdict, in the shape of `status.health`: no floats, the worst first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelops_runtime.telemetry import LATENCY_EDGES

from modelops_operator.api.conditions import timestamp
from modelops_operator.api.quantities import format_decimal, format_duration, without_zeros
from modelops_operator.api.resources import Objectives, OutlierThresholds, Severity
from modelops_operator.core.health.judgement import (
    MAJORITY,
    DriftVerdict,
    FeatureVerdict,
    OutlierVerdict,
    SampledDrift,
)
from modelops_operator.core.health.watch import OutlierReference
from modelops_operator.core.health.windows import Window

MOST_FEATURES: Final = 10
LONGEST_LEVEL: Final = 255
"""Characters that the status has room for."""


def stretch(windows: Sequence[Window]) -> dict[str, Any]:
    """Say what was looked at."""
    start, end = min(each.start for each in windows), max(each.end for each in windows)
    return {
        "window": {"start": timestamp(start), "end": timestamp(end)},
        "rows": sum(each.rows for each in windows),
    }


def drift(verdict: DriftVerdict) -> dict[str, Any]:
    """Give the object `status.health.drift`."""
    worst = verdict.features[:MOST_FEATURES]
    return {
        "statistic": "PSI",
        "severity": str(verdict.severity),
        "value": decimal(worst[0].psi, places=3),
        "threshold": decimal(worst[0].threshold, places=3),
        "features": [_feature(each) for each in worst],
    }


def _feature(verdict: FeatureVerdict) -> dict[str, Any]:
    surge = {"level": verdict.level[:LONGEST_LEVEL], "ratio": decimal(verdict.ratio, places=1)}
    return {
        "name": verdict.name,
        "psi": decimal(verdict.psi, places=3),
        "severity": str(verdict.severity),
        "threshold": decimal(verdict.threshold, places=3),
        **(surge if verdict.level else {}),
        **({"lasting": True} if verdict.lasting else {}),
    }


def sampled_drift(verdict: SampledDrift) -> dict[str, Any]:
    """Give the object `status.health.drift` of a detector that names no features."""
    return {
        "statistic": "ShareOfSamples",
        "severity": str(verdict.severity),
        "value": decimal(verdict.share, places=3),
        "threshold": decimal(MAJORITY, places=3),
    }


def outliers(
    verdict: OutlierVerdict, reference: OutlierReference, thresholds: OutlierThresholds
) -> dict[str, Any]:
    """Give the object `status.health.outliers`."""
    return {
        "severity": str(verdict.severity),
        "rate": decimal(verdict.rate, places=4),
        "reference": decimal(reference.rate, places=4),
        "threshold": format_decimal(
            thresholds.alert if verdict.severity is Severity.ALERT else thresholds.warn
        ),
    }


def service(
    windows: Sequence[Window], objectives: Objectives, *, restarts: int, pending: int
) -> dict[str, Any]:
    """Give the object `status.health.service` of windows; without requests there is no latency."""
    requests = sum(each.requests for each in windows)
    held = {"errorRate": format_decimal(objectives.error_rate)}
    if objectives.p99 is not None:
        held["p99"] = format_duration(objectives.p99)
    start, end = min(each.start for each in windows), max(each.end for each in windows)
    figures: dict[str, Any] = {
        "window": {"start": timestamp(start), "end": timestamp(end)},
        "requests": requests,
        "objectives": held,
        "restarts": restarts,
        "pending": pending,
    }
    if periods := sum(each.periods for each in windows):
        throttled = sum(each.throttled for each in windows)
        figures["throttled"] = decimal(throttled / periods, places=3)
    if not requests:
        return figures
    failed = sum(each.server_errors for each in windows)
    turned_away = sum(each.turned_away for each in windows)
    figures["errorRate"] = decimal(failed / requests, places=4)
    figures["saturation"] = decimal(turned_away / requests, places=4)
    latency: Counter[int] = Counter()
    for each in windows:
        latency.update(each.latency)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        seconds = latency_quantile(latency, share)
        if seconds is not None:
            figures[name] = duration(seconds)
    return figures


def latency_quantile(latency: Mapping[int, int], share: float) -> float | None:
    """Give the seconds within which that share of the requests was answered.

    `latency` has the number of requests for each bin of `LATENCY_EDGES`. Within a bin, it is taken
    to be spread evenly on the logarithmic scale: with ten bins a decade the answer is at most 26 %
    off. None when nothing was timed.
    """
    rank, below = share * sum(latency.values()), 0
    for bin_, number in sorted(latency.items()):
        if 0 < rank <= below + number:
            low = LATENCY_EDGES[max(bin_ - 1, 0)]
            high = LATENCY_EDGES[min(bin_, len(LATENCY_EDGES) - 1)]
            return float(low * (high / low) ** ((rank - below) / number))
        below += number
    return None


def decimal(figure: float, *, places: int) -> str:
    """Write a float as a decimal string, rounded, without exponent."""
    return without_zeros(f"{figure:.{places}f}")


def duration(seconds: float) -> str:
    """Write a latency as Go does, in the unit that suits it: 850us, 3.2ms, 12ms, 1.5s."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.01:
        return f"{decimal(seconds * 1e3, places=1)}ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    return f"{decimal(seconds, places=1)}s"


def seconds(latency: str) -> float:
    """Read what `duration` has written."""
    for unit, length in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if latency.endswith(unit):
            return float(latency.removesuffix(unit)) * length
    raise ValueError(f"{latency!r} is no latency")
