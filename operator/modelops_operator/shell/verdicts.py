"""The verdicts as Prometheus metrics: live figures, where the status has rounded ones."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from modelops_operator.adapters.telemetry import Reading
from modelops_operator.api.conditions import ConditionType
from modelops_operator.core.health.evidence import seconds
from modelops_operator.core.state import Health

Series = tuple[str, str, str, str]
"""Namespace and name of a ModelDeployment, and the model that it predicts with: name, version."""

_LABELS: Final = ("namespace", "name", "model", "version")
_CONDITIONS: Final = {
    ConditionType.DRIFT_DETECTED: Gauge(
        "modelops_drift_detected", "1: drift, 0: none, -1: unknown.", _LABELS
    ),
    ConditionType.OUTLIERS_DETECTED: Gauge(
        "modelops_outliers_detected", "1: too many outliers, 0: no, -1: unknown.", _LABELS
    ),
    ConditionType.MONITORING_HEALTHY: Gauge(
        "modelops_monitoring_healthy", "1: telemetry arrives, 0: no, -1: unknown.", _LABELS
    ),
    ConditionType.SERVICE_HEALTHY: Gauge(
        "modelops_service_healthy", "1: within its objectives, 0: no, -1: unknown.", _LABELS
    ),
}
_FIGURES: Final = {
    ("rows",): Gauge("modelops_window_rows", "Rows in the judged window.", _LABELS),
    ("drift", "value"): Gauge("modelops_drift_value", "PSI of the worst feature.", _LABELS),
    ("outliers", "rate"): Gauge("modelops_outlier_rate", "Share of outliers.", _LABELS),
    ("service", "requests"): Gauge(
        "modelops_window_requests", "Requests in the last windows.", _LABELS
    ),
    ("service", "restarts"): Gauge(
        "modelops_pods_restarted", "Pods that were started again lately.", _LABELS
    ),
    ("service", "pending"): Gauge(
        "modelops_pods_pending", "Pods that have waited long for a node or an image.", _LABELS
    ),
    ("service", "p50"): Gauge("modelops_latency_p50_seconds", "Median of the latency.", _LABELS),
    ("service", "p99"): Gauge("modelops_latency_p99_seconds", "99th percentile of it.", _LABELS),
    ("service", "errorRate"): Gauge("modelops_error_rate", "Share of failed requests.", _LABELS),
    ("service", "saturation"): Gauge(
        "modelops_saturation", "Share of requests turned away for want of room.", _LABELS
    ),
    ("service", "throttled"): Gauge(
        "modelops_cpu_throttled", "Share of the time held back at the CPU limit.", _LABELS
    ),
}
_LEFT_OUT: Final = Counter(
    "modelops_telemetry_lines_left_out",
    "Lines of telemetry that count for nothing: damaged, or foreign (of another model or revision"
    " than their pod's).",
    (*_LABELS, "cause"),
)
_LEVELS: Final = {"True": 1, "False": 0, "Unknown": -1}


class _Features(Collector):
    """The worst features of each model, at most ten, made anew for each scrape.

    A gauge would keep a kilobyte for each of them, and those that are no more among the worst.
    """

    def __init__(self) -> None:
        self.shown: dict[Series, Mapping[str, Any]] = {}
        """`status.health.drift` by series."""

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name what is collected."""
        labels = (*_LABELS, "feature")
        yield GaugeMetricFamily(
            "modelops_feature_psi", "PSI of the features that moved furthest.", labels=labels
        )
        yield GaugeMetricFamily(
            "modelops_feature_psi_threshold", "What the PSI is held against.", labels=labels
        )

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give what the last verdicts say."""
        psi, threshold = self.describe()
        for series, drift in list(self.shown.items()):
            for feature in drift.get("features") or ():
                labels = (*series, feature["name"])
                psi.add_metric(labels, float(feature["psi"]))
                threshold.add_metric(labels, float(feature["threshold"]))
        yield from (psi, threshold)


_FEATURES: Final = _Features()
REGISTRY.register(_FEATURES)


def export(series: Series, health: Health) -> None:
    """Show a verdict."""
    for condition in health.conditions:
        gauge = _CONDITIONS.get(condition.type)
        if gauge is not None:
            gauge.labels(*series).set(_LEVELS[condition.status])
    for path, gauge in _FIGURES.items():
        figure = _find(health.evidence, path)
        if figure is None:
            gauge.remove(*series)
        else:
            timed = path[-1] in {"p50", "p99"}
            gauge.labels(*series).set(seconds(figure) if timed else float(figure))
    _FEATURES.shown[series] = _find(health.evidence, ("drift",)) or {}


def count_left_out(series: Series, reading: Reading) -> None:
    """Count the lines of a reading that were not believed."""
    _LEFT_OUT.labels(*series, "damaged").inc(reading.damaged)
    _LEFT_OUT.labels(*series, "foreign").inc(reading.foreign)


def withdraw(series: Series) -> None:
    """Show nothing more of what is not served any more."""
    for cause in ("damaged", "foreign"):
        _LEFT_OUT.remove(*series, cause)
    for gauge in (*_CONDITIONS.values(), *_FIGURES.values()):
        gauge.remove(*series)
    _FEATURES.shown.pop(series, None)


def _find(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = tree
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
