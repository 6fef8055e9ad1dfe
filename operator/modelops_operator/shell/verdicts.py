"""The verdicts as Prometheus metrics: live figures, where the status has rounded ones."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from modelops_operator.adapters.telemetry import Reading
from modelops_operator.api.conditions import ConditionType
from modelops_operator.core.health.evidence import seconds
from modelops_operator.core.state import Health

Series = tuple[str, str, str, str]
"""Namespace and name of a ModelDeployment, and the model that it predicts with: name, version."""

_LABELS: Final = ("namespace", "name", "model", "version")
_CONDITIONS: Final = {
    ConditionType.DRIFT_DETECTED: ("modelops_drift_detected", "1: drift, 0: none, -1: unknown."),
    ConditionType.OUTLIERS_DETECTED: (
        "modelops_outliers_detected",
        "1: too many outliers, 0: no, -1: unknown.",
    ),
    ConditionType.MONITORING_HEALTHY: (
        "modelops_monitoring_healthy",
        "1: telemetry arrives, 0: no, -1: unknown.",
    ),
    ConditionType.SERVICE_HEALTHY: (
        "modelops_service_healthy",
        "1: within its objectives, 0: no, -1: unknown.",
    ),
}
_FIGURES: Final = {
    ("rows",): ("modelops_window_rows", "Rows in the judged window."),
    ("drift", "value"): ("modelops_drift_value", "PSI of the worst feature."),
    ("outliers", "rate"): ("modelops_outlier_rate", "Share of outliers."),
    ("service", "requests"): ("modelops_window_requests", "Requests in the last windows."),
    ("service", "restarts"): ("modelops_pods_restarted", "Pods that were started again lately."),
    ("service", "pending"): (
        "modelops_pods_pending",
        "Pods that have waited long for a node or an image.",
    ),
    ("service", "p50"): ("modelops_latency_p50_seconds", "Median of the latency."),
    ("service", "p99"): ("modelops_latency_p99_seconds", "99th percentile of it."),
    ("service", "errorRate"): ("modelops_error_rate", "Share of failed requests."),
    ("service", "saturation"): (
        "modelops_saturation",
        "Share of requests turned away for want of room.",
    ),
    ("service", "throttled"): (
        "modelops_cpu_throttled",
        "Share of the time held back at the CPU limit.",
    ),
}
_LEFT_OUT: Final = (
    "modelops_telemetry_lines_left_out",
    "Lines of telemetry that count for nothing: damaged, or foreign (of another pod's model).",
)
_CAUSES: Final = ("damaged", "foreign")
_LEVELS: Final = {"True": 1.0, "False": 0.0, "Unknown": -1.0}


class _Figures(Collector):
    """What is shown of each model as a whole, as plain numbers.

    Metrics of the library's own would keep a kilobyte for each figure of each of thousands.
    """

    def __init__(self) -> None:
        self.shown: dict[Series, Mapping[str, float]] = {}
        """Figures by the names of their metrics."""
        self.left_out: dict[Series, tuple[int, int]] = {}
        """Damaged and foreign lines."""

    def describe(self) -> Iterator[Metric]:
        """Name what is collected."""
        for name, about in (*_CONDITIONS.values(), *_FIGURES.values()):
            yield GaugeMetricFamily(name, about, labels=_LABELS)
        yield CounterMetricFamily(*_LEFT_OUT, labels=(*_LABELS, "cause"))

    def collect(self) -> Iterator[Metric]:
        """Give what the last verdicts say."""
        *gauges, counter = self.describe()
        for gauge in gauges:
            for series, figures in list(self.shown.items()):
                if gauge.name in figures:
                    gauge.add_sample(gauge.name, _named(series), figures[gauge.name])
            yield gauge
        for series, counts in list(self.left_out.items()):
            for cause, count in zip(_CAUSES, counts, strict=True):
                counter.add_sample(
                    f"{counter.name}_total", {**_named(series), "cause": cause}, count
                )
        yield counter


def _named(series: Series) -> dict[str, str]:
    return dict(zip(_LABELS, series, strict=True))


class _Features(Collector):
    """The worst features of each model, at most ten, made anew for each scrape.

    A gauge would keep a kilobyte for each of them, and those that are no more among the worst.
    """

    def __init__(self) -> None:
        self.shown: dict[Series, Health] = {}

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
        for series, health in list(self.shown.items()):
            for feature in _find(health.evidence, ("drift", "features")) or ():
                labels = (*series, feature["name"])
                psi.add_metric(labels, float(feature["psi"]))
                threshold.add_metric(labels, float(feature["threshold"]))
        yield from (psi, threshold)


_FEATURES: Final = _Features()
_SHOWN: Final = _Figures()
REGISTRY.register(_FEATURES)
REGISTRY.register(_SHOWN)


def export(series: Series, health: Health) -> None:
    """Show a verdict."""
    figures = {
        _CONDITIONS[condition.type][0]: _LEVELS[condition.status]
        for condition in health.conditions
        if condition.type in _CONDITIONS
    }
    evidence = health.evidence
    for path, (name, _) in _FIGURES.items():
        figure = _find(evidence, path)
        if figure is not None:
            timed = path[-1] in {"p50", "p99"}
            figures[name] = seconds(figure) if timed else float(figure)
    _SHOWN.shown[series] = figures
    _FEATURES.shown[series] = health


def count_left_out(series: Series, reading: Reading) -> None:
    """Count the lines of a reading that were not believed."""
    damaged, foreign = _SHOWN.left_out.get(series, (0, 0))
    _SHOWN.left_out[series] = (damaged + reading.damaged, foreign + reading.foreign)


def withdraw(series: Series) -> None:
    """Show nothing more of what is not served any more."""
    for shown in (_SHOWN.shown, _SHOWN.left_out, _FEATURES.shown):
        shown.pop(series, None)


def _find(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = tree
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
