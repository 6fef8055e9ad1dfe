"""What a report shows: the verdict of one moment, and all that led to it. Pure.

    report = describe(subject, lines, watch, settle=source.settle, now=now)

The verdict is `evaluate`'s; each figure beside it is by the same functions, of one group of windows
at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from modelops_runtime.profile import FeatureProfile, Profile
from modelops_runtime.telemetry import Line

from modelops_operator.api.resources import DriftThresholds, Severity
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.evidence import duration, latency_quantile
from modelops_operator.core.health.judgement import (
    FeatureVerdict,
    compared,
    counted,
    judge_day,
    judge_drift,
)
from modelops_operator.core.health.statistics import Counts
from modelops_operator.core.health.watch import Watch
from modelops_operator.core.health.windows import Groups, TelemetryStore, Window, apart
from modelops_operator.core.release import Release
from modelops_operator.core.state import Health

FOLLOWED: Final = 5
"""Features whose way through time is shown: the worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The deployment that is reported of."""

    namespace: str
    name: str
    release: Release
    """What it runs."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of a feature on both sides, as shares of all values, 0 to 1."""

    label: str
    expected: float
    """In the reference."""
    found: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A feature, or the predictions, against the reference."""

    name: str
    psi: float
    severity: Severity
    bounds: tuple[float, float]
    """The PSI that is a warning, and the one that is an alert."""
    level: str
    """What came so much more often that this alone is an alert, or empty."""
    ratio: float
    """How many times as often as in the reference the level came."""
    lasting: bool
    """Only the last day shows it: the bins are those of the windows of late."""

    @property
    def told(self) -> str:
        """Severity and why, in words; empty if nothing is wrong."""
        if self.severity is Severity.NONE:
            return ""
        surge = f'"{self.level}" {self.ratio:.1f} times as often' if self.level else ""
        words = (str(self.severity), surge, "for a day" if self.lasting else "")
        return ", ".join(word for word in words if word)

    bins: tuple[Bin, ...]
    """Those of guards, missing values and unseen categories only where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A figure through time."""

    title: str
    told: Callable[[float], str]
    """Writes a value."""
    points: tuple[tuple[Window, float], ...]
    bounds: tuple[float, ...] = ()
    """Thresholds or objectives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is shown."""

    subject: Subject
    now: datetime
    health: Health
    features: tuple[Feature, ...]
    """The worst first; empty without a reference or before there is enough traffic."""
    untold: tuple[str, ...]
    """Features that nothing was counted of."""
    series: tuple[Series, ...]
    """Traffic, then the drift of the worst features."""


def describe(  # noqa: PLR0913 (what is told, and what it is judged by)
    subject: Subject,
    lines: Iterable[Line],
    watch: Watch,
    *,
    settle: timedelta,
    now: datetime,
    damaged: int = 0,
) -> Report:
    """Judge the lines and lay out what they tell; `damaged` others could not be understood."""
    known, revision = tuple(lines), subject.release.revision
    store = TelemetryStore(settle=settle)
    store.add(subject, known, now, damaged=damaged)
    history = store.history(subject, revision)
    windows = apart(line for line in known if line.revision == revision)
    settled = [window for window in windows if window.end + settle <= now]
    groups = history.groups(now)
    features: tuple[Feature, ...] = ()
    untold: tuple[str, ...] = ()
    series = list(_traffic(settled, watch))
    if (
        isinstance(watch.drift, Profile)
        and groups.closed
        and counted(groups.closed[-1], watch.drift)
    ):
        thresholds = watch.monitoring.drift
        lasting = judge_day(history.day(), watch.drift, thresholds)
        features, untold = _features(groups, lasting, watch.drift, thresholds)
        series += _drift(settled, features[:FOLLOWED], watch.drift, thresholds)
    return Report(
        subject=subject,
        now=now,
        health=evaluate(history, watch, now),
        features=features,
        untold=untold,
        series=tuple(series),
    )


def _features(
    groups: Groups,
    lasting: Mapping[str, FeatureVerdict],
    profile: Profile,
    thresholds: DriftThresholds,
) -> tuple[tuple[Feature, ...], tuple[str, ...]]:
    places, span = compared(profile), groups.span
    shown, untold = [], []
    for verdict in judge_drift(groups.closed, profile, thresholds, lasting).features:
        index, reference = places[verdict.name]
        counts = None if span is None else span.histograms.get((profile.edges_hash, index))
        if counts is None or not counts.sum():
            untold.append(verdict.name)
            continue
        shown.append(
            Feature(
                name=verdict.name,
                psi=verdict.psi,
                severity=verdict.severity,
                bounds=verdict.bounds,
                level=verdict.level,
                ratio=verdict.ratio,
                lasting=verdict.lasting,
                bins=tuple(_bins(reference, counts)),
            )
        )
    return tuple(shown), tuple(untold)


def _bins(reference: FeatureProfile, counts: Counts) -> Iterator[Bin]:
    expected = (*reference.counts, reference.missing, reference.unseen)
    labels = (*_labels(reference), "missing", "unseen")
    total = max(sum(expected), 1)
    always = range(1, reference.bins - 1) if reference.kind == "number" else range(reference.bins)
    for place, (label, before, after) in enumerate(zip(labels, expected, counts, strict=True)):
        if place in always or before or after:
            yield Bin(label, before / total, float(after / counts.sum()))


def _labels(feature: FeatureProfile) -> Sequence[str]:
    if feature.kind == "category":
        more = len(feature.levels) > feature.bins
        return [
            f"{level} and others" if more else level for level in feature.levels[: feature.bins]
        ]
    edges = [f"{edge:.6g}" for edge in feature.edges]
    within = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *within, f"above {edges[-1]}"]


def _traffic(windows: Sequence[Window], watch: Watch) -> Iterator[Series]:
    objectives = watch.monitoring.objectives
    asked = [window for window in windows if window.requests]
    yield Series(
        title="Requests",
        told=lambda value: f"{value:,.0f}",
        points=tuple((window, float(window.requests)) for window in windows),
    )
    yield Series(
        title="Failed requests",
        told=_percent,
        points=tuple((window, window.server_errors / window.requests) for window in asked),
        bounds=(float(objectives.error_rate),),
    )
    yield Series(
        title="99th percentile of the latency",
        told=duration,
        points=tuple(
            (window, seconds)
            for window in asked
            if (seconds := latency_quantile(window.latency, 0.99)) is not None
        ),
        bounds=() if objectives.p99 is None else (objectives.p99.total_seconds(),),
    )
    if watch.outliers is not None:
        yield Series(
            title="Outliers",
            told=_percent,
            points=tuple(
                (window, window.outliers / window.rows) for window in windows if window.rows
            ),
        )


def _drift(
    windows: Sequence[Window],
    features: Sequence[Feature],
    profile: Profile,
    thresholds: DriftThresholds,
) -> Iterator[Series]:
    judged = [(group, _values(group, profile, thresholds)) for group in _groups(windows)]
    for feature in features:
        yield Series(
            title=f"PSI of {feature.name}",
            told=lambda value: f"{value:.2f}",
            points=tuple((group, values[feature.name]) for group, values in judged),
            bounds=feature.bounds,
        )


def _groups(windows: Iterable[Window]) -> Iterator[Window]:
    """Merge windows until there are enough rows to judge, as the verdict does; give all of them."""
    groups = Groups()
    for window in windows:
        groups = groups.grown(window)
        if groups.open is None:
            yield groups.closed[-1]


def _values(group: Window, profile: Profile, thresholds: DriftThresholds) -> Mapping[str, float]:
    return {each.name: each.psi for each in judge_drift([group], profile, thresholds).features}


def _percent(share: float) -> str:
    return f"{share:.2%}"


def facts(report: Report) -> Mapping[str, Any]:
    """Tell in words what is reported of, by the names that people look for."""
    release, evidence = report.subject.release, report.health.evidence
    window = evidence.get("window")
    return {
        "revision": release.revision,
        "image": release.reference,
        **({"runtime": release.runtime} if release.runtime else {}),
        **({"served as": release.form} if release.form else {}),
        **({"judged": f"{window['start']} to {window['end']}"} if window else {}),
        "rows": f"{evidence.get('rows', 0):,}",
    }
