"""Prometheus metrics of the models, beside those of HTTP that BentoML has.

They are raised once a window, by the recorder's thread: nothing is added to a request.
"""

from prometheus_client import Counter, Gauge

from modelops_runtime.counting import Identity, Window
from modelops_runtime.models import Models


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
        self._rows = Counter("modelops_rows", "Rows that were predicted")
        self._outliers = Counter("modelops_outliers", "Rows that the detector found unlike")
        self._requests = Counter("modelops_requests", "Requests for predictions", ["outcome"])
        self._lost = Counter("modelops_telemetry_lines_lost", "Lines that could not be written")

    def count(self, window: Window) -> None:
        """Add what a window saw."""
        line = window.totals
        self._rows.inc(line.rows)
        self._outliers.inc(line.outliers)
        refused, failed = line.client_errors, line.server_errors
        self._requests.labels("answered").inc(window.requests - refused - failed)
        self._requests.labels("refused").inc(refused)
        self._requests.labels("failed").inc(failed)

    def lose(self, lines: int) -> None:
        """Add lines of telemetry that are lost."""
        self._lost.inc(lines)
