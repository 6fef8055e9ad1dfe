"""The claims about false alarms and power, on a small scale and with fixed seeds."""

from collections.abc import Iterator
from dataclasses import replace
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


def moving(profile: Profile, variation: float) -> Profile:
    """Tell how far each feature moves by itself."""
    features = (replace(feature, variation=variation) for feature in profile.features)
    return replace(profile, features=tuple(features))


@pytest.mark.parametrize("seed", range(10))
def test_half_a_standard_deviation_is_an_alert_where_that_is_known_to_be_unusual(seed: int) -> None:
    random = np.random.default_rng(seed)
    profile = moving(reference(random), 0.04)
    first, second = verdicts(windows(random, profile, 1000, shift=0.5), profile, 2)
    assert first.unconfirmed == ("x0",)
    assert second.severity is Severity.ALERT
    worst, other = second.features[:2]
    assert (worst.name, other.severity) == ("x0", Severity.NONE)
    assert 0.1 <= worst.threshold < worst.psi


def test_what_moves_far_by_itself_is_no_drift_until_it_moves_further() -> None:
    random = np.random.default_rng(8)
    plain = reference(random)
    nightly = moving(plain, 0.8)  # a shift of about 0.9 standard deviations
    for profile, shift, severity in [
        (plain, 0.9, Severity.ALERT),
        (nightly, 0.9, Severity.NONE),
        (nightly, 1.3, Severity.ALERT),
    ]:
        *_, last = verdicts(windows(random, profile, 1000, shift=shift), profile, 3)
        assert last.severity is severity, shift


def test_few_rows_take_more_than_many() -> None:
    random = np.random.default_rng(9)
    profile = moving(reference(random), 0.09)
    thresholds = []
    for rows in (1000, 5000, 100_000):
        *_, last = verdicts(windows(random, profile, rows), profile, 2)
        thresholds.append(last.features[0].bounds[1])
    assert thresholds == sorted(thresholds, reverse=True)
    assert 0.1 <= thresholds[-1] < 0.11
    assert thresholds[0] > 0.15


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_a_category_that_doubles_its_share_is_an_alert_that_names_it(share: float) -> None:
    random = np.random.default_rng(11)
    before, after = ([each, *[(1 - each) / 4] * 4] for each in (share, 2 * share))
    feature = FeatureProfile(
        name="colour",
        kind="category",
        levels=("red", "green", "blue", "white", "black"),
        counts=tuple(int(n) for n in random.multinomial(100_000, before)),
        variation=0.001,
    )
    profile = Profile(features=(feature,), rows=100_000)
    groups = [
        Window(
            start=START,
            end=START + WINDOW,
            rows=1000,
            histograms={(profile.edges_hash, 0): np.r_[random.multinomial(1000, after), 0, 0]},
        )
        for _ in range(3)
    ]
    verdict = judge_drift(groups, profile, THRESHOLDS)
    assert verdict.severity is Severity.ALERT
    assert verdict.features[0].level == "red"
    assert 1.5 <= verdict.features[0].ratio < 2.5
    assert judge_drift(groups[:1], profile, THRESHOLDS).unconfirmed == ("colour",)
    given = DriftThresholds.model_validate({"alert": "0.5"})
    assert judge_drift(groups, profile, given).severity is not Severity.ALERT
    blind = Profile(features=(replace(feature, variation=None),), rows=100_000)
    assert judge_drift(groups, blind, THRESHOLDS).severity is not Severity.ALERT


def test_missing_values_that_become_three_times_as_many_are_an_alert() -> None:
    random = np.random.default_rng(12)
    profile = moving(reference(random), 0.001)
    gaps = replace(profile.features[0], missing=1000)
    profile = replace(profile, features=(gaps, *profile.features[1:]))

    def holed() -> Iterator[Window]:
        for window in windows(random, profile, 2000):
            key = (profile.edges_hash, 0)
            counts = window.histograms[key] + np.r_[np.zeros(len(shares())), 60, 0].astype(int)
            yield replace(window, histograms={**window.histograms, key: counts})

    _, second = verdicts(holed(), profile, 2)
    assert (second.severity, second.features[0].level) == (Severity.ALERT, "missing")


def test_given_thresholds_are_kept_and_the_others_filled_in() -> None:
    random = np.random.default_rng(13)
    profile = moving(reference(random), 0.0)
    groups = list(islice(windows(random, profile, 100_000), 2))

    def bounds(**given: str) -> tuple[float, float]:
        thresholds = DriftThresholds.model_validate(given)
        return judge_drift(groups, profile, thresholds).features[0].bounds

    assert bounds() == (0.05, 0.1)
    assert bounds(alert="0.3") == (0.05, 0.3)
    assert bounds(alert="0.02") == (0.02, 0.02)
    assert bounds(warn="0.2") == (0.2, 0.2)
    assert bounds(warn="0.2", alert="0.4") == (0.2, 0.4)


def test_features_that_nothing_is_told_of_do_not_dull_the_test_of_the_others() -> None:
    random = np.random.default_rng(14)
    profile = reference(random)
    groups = list(islice(windows(random, profile, 1000, shift=0.35), 2))
    alone = [
        replace(each, histograms={(profile.edges_hash, 0): each.histograms[profile.edges_hash, 0]})
        for each in groups
    ]
    one = Profile(features=profile.features[:1], rows=profile.rows)
    moved = [
        replace(each, histograms={(one.edges_hash, 0): each.histograms[profile.edges_hash, 0]})
        for each in groups
    ]
    expected, *_ = judge_drift(moved, one, THRESHOLDS).features
    found, *_ = judge_drift(alone, profile, THRESHOLDS).features
    assert found == expected
