"""Prometheus metrics of the models, in place of BentoML's, which grow with every path asked for.

They are raised about once a second, by the recorder's thread: nothing is added to a request.
"""

from prometheus_client import Counter, Gauge, Histogram

from modelops_runtime.counting import Block, Identity
from modelops_runtime.models import Models

_BUCKETS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_LABELS = ("model", "version", "form")


class Metrics:
    """The metrics of one worker; make one only, since names are taken once per process."""

    def __init__(self, models: Models, identity: Identity) -> None:
        info = Gauge(
            "modelops_model_info",
            "1 for the model that is served and the form that answers",
            ["name", "version", "revision", "form"],
            multiprocess_mode="livemax",
        )
        info.labels(models.name, models.version, identity.revision, identity.form).set(1)
        labels = (models.name, models.version, identity.form)
        self._rows = Counter("modelops_rows", "Rows that were predicted", _LABELS).labels(*labels)
        self._outliers = Counter(
            "modelops_outliers", "Rows that are unlike the training data", _LABELS
        ).labels(*labels)
        requests = Counter(
            "modelops_requests",
            "Requests for predictions: answered, refused (4xx), overloaded (503), failed (5xx)",
            [*_LABELS, "outcome"],
        )
        self._answered = requests.labels(*labels, "answered")
        self._refused = requests.labels(*labels, "refused")
        self._overloaded = requests.labels(*labels, "overloaded")
        self._failed = requests.labels(*labels, "failed")
        self._seconds = Histogram(
            "modelops_request_seconds", "Time to answer a request", _LABELS, buckets=_BUCKETS
        ).labels(*labels)
        self._in_flight = Gauge(
            "modelops_requests_in_flight",
            "The most requests at a time within the last second",
            multiprocess_mode="livesum",
        )
        self._judged = Counter(
            "modelops_detector_windows",
            "Samples of a window shown to a detector of others, by what came of it",
            ["role", "outcome"],
        )
        self._lost = Counter("modelops_telemetry_lines_lost", "Lines that could not be written")

    def count(self, block: Block) -> None:
        """Add what was noted."""
        self._rows.inc(block.rows)
        self._outliers.inc(block.outliers)
        self._refused.inc(block.client_errors)
        self._overloaded.inc(block.turned_away)
        self._failed.inc(block.server_errors - block.turned_away)
        self._answered.inc(len(block.durations) - block.client_errors - block.server_errors)
        for seconds in block.durations:
            self._seconds.observe(seconds)

        for role, verdict in block.verdicts.items():
            outcome = "failed" if verdict.failed else "judged"
            self._judged.labels(role, outcome).inc()

    def set_in_flight(self, requests: int) -> None:
        """Tell how many requests there were at a time."""
        self._in_flight.set(requests)

    def lose(self, lines: int) -> None:
        """Add lines of telemetry that are lost."""
        self._lost.inc(lines)
