"""The verdicts as Prometheus metrics: live figures, where the status has rounded ones."""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import Counter, Gauge

from modelops_operator.adapters.telemetry import Reading
from modelops_operator.api.conditions import ConditionType
from modelops_operator.core.state import Health
from modelops_operator.shell.queue import Key

_LABELS: Final = ("namespace", "name")
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
    ("service", "errorRate"): Gauge("modelops_error_rate", "Share of failed requests.", _LABELS),
}
_LEFT_OUT: Final = Counter(
    "modelops_telemetry_lines_left_out",
    "Lines of telemetry that count for nothing: damaged, or foreign (of another model or revision"
    " than their pod's).",
    (*_LABELS, "cause"),
)
_LEVELS: Final = {"True": 1, "False": 0, "Unknown": -1}


def export(key: Key, health: Health) -> None:
    """Show a verdict."""
    for condition in health.conditions:
        gauge = _CONDITIONS.get(condition.type)
        if gauge is not None:
            gauge.labels(*key).set(_LEVELS[condition.status])
    for path, gauge in _FIGURES.items():
        figure = _find(health.evidence, path)
        if figure is None:
            gauge.remove(*key)
        else:
            gauge.labels(*key).set(float(figure))


def count_left_out(key: Key, reading: Reading) -> None:
    """Count the lines of a reading that were not believed."""
    _LEFT_OUT.labels(*key, "damaged").inc(reading.damaged)
    _LEFT_OUT.labels(*key, "foreign").inc(reading.foreign)


def withdraw(key: Key) -> None:
    """Show nothing of an object that is gone."""
    for cause in ("damaged", "foreign"):
        _LEFT_OUT.remove(*key, cause)
    for gauge in (*_CONDITIONS.values(), *_FIGURES.values()):
        gauge.remove(*key)


def _find(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = tree
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
