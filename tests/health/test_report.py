"""What a report shows, as a page and in a terminal."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from modelops_operator.api.facts import Role
from modelops_operator.api.resources import Severity
from modelops_operator.cli.report_page import page
from modelops_operator.cli.report_text import bars, show
from modelops_operator.core.health.report import Report, Subject, describe
from modelops_operator.core.release import Release, ReleasedModel
from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_runtime.telemetry import Line
from rich.console import Console

from tests.health.builders import REFERENCE, START, WINDOW, counted, line, watch

pytestmark = pytest.mark.unit

RELEASE = Release(
    models=(ReleasedModel(role=Role.PREDICTOR, name="m", alias=None, version="3", run_id="r"),),
    reference="registry.test/m@sha256:1",
    lock="",
    runtime="0.1.0",
)
SUBJECT = Subject(namespace="staging", name="employment", release=RELEASE)
SCHEMA = Schema(
    inputs=(
        Input(name="x0", kind="number"),
        Input(name="<b>state", kind="category", levels=("CA", "NY")),
        Input(name="secret", kind="number"),
    ),
    output=Output(kind="regressor", name="y"),
)
SETTLE = timedelta(seconds=5)


def rows(seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    columns = [random.standard_normal(2000) + shift, random.integers(0, 2, 2000)]
    return np.column_stack([*columns, random.standard_normal(2000)])


PROFILE = Profile.fit(np.concatenate([rows(seed) for seed in range(20)]), SCHEMA)


def traffic(window: int) -> Line:
    """Shift the first feature by two standard deviations; tell nothing of the last."""
    features: Mapping[int, Histogram] = counted(PROFILE, rows(100 + window, shift=2.0))
    return line(
        window=window,
        rows=2000,
        requests=50,
        outliers=40,
        latency=((30, 50),),
        revision=RELEASE.revision,
        edges=PROFILE.edges_hash,
        features={index: features[index] for index in (0, 1)},
    )


def reported(*lines: Line, **changes: object) -> Report:
    watched = watch(drift=PROFILE, outliers=REFERENCE, **changes)
    now = START + 3 * WINDOW + SETTLE
    return describe(SUBJECT, lines, watched, settle=SETTLE, now=now)


REPORT = reported(*(traffic(number) for number in range(3)))


def test_the_worst_feature_comes_first_with_the_shares_of_its_bins() -> None:
    assert [each.name for each in REPORT.features] == ["x0", "<b>state"]
    assert REPORT.untold == ("secret",)
    worst, category = REPORT.features
    assert (worst.severity, category.severity) == ("Alert", "None")
    for feature in REPORT.features:
        assert sum(one.expected for one in feature.bins) == pytest.approx(1)
        assert sum(one.found for one in feature.bins) == pytest.approx(1)
    assert worst.bins[-2].found > 0.5 > worst.bins[-2].expected
    assert worst.bins[-1].found > worst.bins[-1].expected == 0
    assert [one.label for one in category.bins] == ["CA", "NY"]


def test_what_is_shown_is_what_the_status_says() -> None:
    drift = REPORT.health.evidence["drift"]
    assert drift["features"][0]["name"] == "x0"
    assert float(drift["value"]) == pytest.approx(REPORT.features[0].psi, abs=1e-3)


def test_every_window_is_shown_once() -> None:
    again = reported(*(traffic(number) for number in (0, 1, 1, 2, 0)))
    requests, _, latency, outliers, *drift = again.series
    assert [value for _, value in requests.points] == [50, 50, 50]
    assert [value for _, value in outliers.points] == [0.02, 0.02, 0.02]
    assert len(latency.points) == 3
    assert [each.title for each in drift] == ["PSI of x0", "PSI of <b>state"]
    assert [len(each.points) for each in drift] == [3, 3]


def test_windows_of_other_revisions_and_of_now_are_left_out() -> None:
    others = replace(traffic(1), revision="another"), traffic(3)
    requests = reported(traffic(0), *others).series[0]
    assert len(requests.points) == 1


class Page(HTMLParser):
    """Remembers what a page would load, and its elements."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.elements: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loads += [f"{name}={value}" for name, value in attrs if name in {"src", "href"}]


def test_the_page_needs_nothing_else_and_tells_everything() -> None:
    content = page(REPORT)
    found = Page(content)
    assert found.loads == []
    assert not re.search(r"url\(|@import|https?://", content)
    assert "b" not in found.elements  # a name is text
    for condition in REPORT.health.conditions:
        assert str(condition.reason) in content
    # A histogram for each feature, and a plot for each series.
    assert found.elements.count("svg") == len(REPORT.features) + len(REPORT.series)
    assert "50 %" not in content
    assert "NaN" not in content


def text(report: Report) -> str:
    shown = StringIO()
    show(report, Console(file=shown, width=160))
    return shown.getvalue()


def test_a_feature_is_told_in_words() -> None:
    worst = REPORT.features[0]
    assert worst.told == "Alert"
    assert replace(worst, level="NY", ratio=2.04).told == 'Alert, "NY" 2.0 times as often'
    assert replace(worst, severity=Severity.WARN, lasting=True).told == "Warn, for a day"
    assert replace(worst, severity=Severity.NONE).told == ""


def test_a_terminal_shows_the_same() -> None:
    shown = text(REPORT)
    for word in ("DriftAlert", "x0", "<b>state", "PSI of x0", "secret", "m 3", "2.00%"):
        assert word in shown
    assert "█" in shown


@pytest.mark.parametrize("lines", [(), (line(revision=RELEASE.revision),)])
def test_without_traffic_there_are_verdicts_and_no_plots(lines: tuple[Line, ...]) -> None:
    empty = reported(*lines)
    assert empty.features == ()
    assert "DriftDetected" in page(empty)
    assert "DriftDetected" in text(empty)


def test_bars_show_what_there_is_however_little() -> None:
    assert bars([0, 1e-9, 0.5, 1]) == " ▁▄█"
    assert bars([]) == ""
    assert bars([0, 0]) == "  "
    assert bars([0.5], most=1.0) == "▄"
