"""The claims about false alarms and power, on a small scale and with fixed seeds."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from modelops_operator.api.resources import DriftThresholds, Severity
from modelops_operator.core.health.judgement import DriftVerdict, judge_drift
from modelops_operator.core.health.windows import Window
from modelops_runtime.profile import FeatureProfile, Profile
from scipy.stats import norm

from tests.health.builders import START, WINDOW

pytestmark = pytest.mark.unit

FEATURES = 30
THRESHOLDS = DriftThresholds()
EDGES = norm.ppf(np.linspace(0, 1, 21)[1:-1])


def shares(shift: float = 0.0) -> np.ndarray:
    """Give the bins' shares of a normal: 20 bins, and guard bins at 4.3 standard deviations."""
    edges = [-4.3, *EDGES, 4.3]
    return np.diff(norm.cdf([-np.inf, *edges, np.inf], loc=shift))


def reference(random: np.random.Generator, rows: int = 100_000) -> Profile:
    edges = (-4.3, *(float(edge) for edge in EDGES), 4.3)
    features = tuple(
        FeatureProfile(
            name=f"x{index}",
            kind="number",
            edges=edges,
            levels=(),
            counts=tuple(int(n) for n in random.multinomial(rows, shares())),
            missing=0,
        )
        for index in range(FEATURES)
    )
    return Profile(features=features, rows=rows, scores=None)


def windows(
    random: np.random.Generator, profile: Profile, rows: int, *, shift: float = 0.0
) -> Iterator[Window]:
    """Give windows of traffic like the reference, but for the first feature."""
    while True:
        yield Window(
            start=START,
            end=START + WINDOW,
            rows=rows,
            histograms={
                (profile.edges_hash, index): np.array(
                    [*random.multinomial(rows, shares(0.0 if index else shift)), 0, 0]
                )
                for index in range(FEATURES)
            },
        )


def verdicts(stream: Iterator[Window], profile: Profile, number: int) -> Iterator[DriftVerdict]:
    seen: list[Window] = []
    for window in islice(stream, number):
        seen = [*seen, window][-3:]
        yield judge_drift(seen, profile, THRESHOLDS)


@pytest.mark.parametrize("rows", [1000, 15_000])
def test_without_drift_there_is_no_alarm(rows: int) -> None:
    random = np.random.default_rng(rows)
    profile = reference(random)
    for verdict in verdicts(windows(random, profile, rows), profile, 300):
        assert verdict.severity is Severity.NONE
        assert not verdict.unconfirmed


def test_a_daily_rhythm_is_no_alarm() -> None:
    random = np.random.default_rng(24)
    profile = reference(random)
    day = [0.2 * np.sin(hour / 24 * 2 * np.pi) for hour in range(48)]
    stream = (next(windows(random, profile, 1000, shift=shift)) for shift in day)
    assert {each.severity for each in verdicts(stream, profile, len(day))} == {Severity.NONE}


@pytest.mark.parametrize("seed", range(20))
def test_half_a_standard_deviation_is_found_in_the_second_window(seed: int) -> None:
    random = np.random.default_rng(seed)
    profile = reference(random)
    first, second = verdicts(windows(random, profile, 1000, shift=0.5), profile, 2)
    assert first.severity is Severity.NONE
    assert first.unconfirmed == ("x0",)
    assert second.severity in {Severity.WARN, Severity.ALERT}
    assert second.features[0].name == "x0"


def test_a_shift_that_nobody_would_mind_is_silent_however_significant() -> None:
    random = np.random.default_rng(300)
    profile = reference(random, rows=300_000)
    stream = windows(random, profile, 300_000, shift=0.02)
    assert {each.severity for each in verdicts(stream, profile, 20)} == {Severity.NONE}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a broken sensor", lambda counts: np.bincount([5], [counts.sum()], len(counts))),
        ("half of it missing", lambda counts: np.r_[counts[:-2] // 2, counts.sum() // 2, 0]),
        ("far outliers", lambda counts: np.r_[counts[:-3] * 95 // 100, counts.sum() // 20, 0, 0]),
        ("unseen categories", lambda counts: np.r_[counts[:-2] // 2, 0, counts.sum() // 2]),
    ],
)
def test_what_breaks_is_alarmed_in_the_second_window(name: str, change: object) -> None:
    random = np.random.default_rng(5)
    profile = reference(random)

    def broken() -> Iterator[Window]:
        for window in windows(random, profile, 2000):
            key = (profile.edges_hash, 0)
            counts = change(window.histograms[key]).astype(np.int64)  # type: ignore[operator]
            yield Window(
                start=START,
                end=START + WINDOW,
                rows=2000,
                histograms={**window.histograms, key: counts},
            )

    _, second = verdicts(broken(), profile, 2)
    assert second.severity is Severity.ALERT, name
    assert [each.name for each in second.features if each.severity is not Severity.NONE] == ["x0"]
