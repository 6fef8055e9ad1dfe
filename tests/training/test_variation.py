"""How far a reference moves by itself, against brute force and against what was put in."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from modelops_runtime import flavor
from modelops_runtime.profile import FeatureProfile, Profile
from modelops_runtime.schema import Input, Output, Schema
from modelops_training import DataError, adopt, train
from modelops_training.variation import CHANCE, LEAST_ROWS, groups_of, variation, varied
from scipy import stats
from sklearn.linear_model import LogisticRegression

pytestmark = pytest.mark.unit

ROWS = 60_000
SCHEMA = Schema(
    (
        Input(name="x", kind="number"),
        Input(name="day", kind="category", levels=("work", "weekend")),
        Input(name="still", kind="number"),
    ),
    Output(kind="regressor", name="y"),
)


@pytest.fixture(scope="module")
def times() -> pd.Series:
    seconds = np.random.default_rng(1).integers(0, 28 * 24 * 3600, ROWS)
    return pd.Series(pd.Timestamp("2026-03-02", tz="UTC") + pd.to_timedelta(seconds, unit="s"))


@pytest.fixture(scope="module")
def matrix(times: pd.Series) -> np.ndarray:
    random = np.random.default_rng(2)
    rhythm = 0.2 * np.sin(2 * np.pi * (times.dt.hour + times.dt.minute / 60) / 24)
    weekend = times.dt.day_of_week >= 5
    return np.column_stack(
        [
            random.standard_normal(ROWS) + rhythm,
            random.random(ROWS) < np.where(weekend, 0.4, 0.2),
            random.standard_normal(ROWS),
        ]
    ).astype(float)


def brute(feature: FeatureProfile, values: np.ndarray, times: pd.Series) -> float:
    """Hold each group against the rest, row by row."""
    found = [0.0]
    places, order = feature.place(values), times.rank(pct=True)
    for keys in (times.dt.hour, times.dt.day_of_week, np.ceil(order * 20)):
        for key in keys.unique():
            group, rest = places[keys == key], places[keys != key]
            assert min(len(group), len(rest)) >= LEAST_ROWS
            total, bins = 0.0, sorted({*places.tolist()})
            for each in bins:
                p = (np.sum(rest == each) + 0.5) / (len(rest) + 0.5 * len(bins))
                q = (np.sum(group == each) + 0.5) / (len(group) + 0.5 * len(bins))
                total += (q - p) * np.log(q / p)
            chance = stats.chi2.isf(CHANCE, len(bins) - 1) * (1 / len(rest) + 1 / len(group))
            found.append(total - chance)
    return max(found)


def test_it_is_the_furthest_group_without_chance(matrix: np.ndarray, times: pd.Series) -> None:
    groups = groups_of(times, ROWS)
    profile = varied(Profile.fit(matrix, SCHEMA), matrix, groups)
    x, day, still = profile.features
    for feature, column in ((x, matrix[:, 0]), (day, matrix[:, 1])):
        assert feature.variation == pytest.approx(brute(feature, column, times), rel=0.02)
    assert x.variation == pytest.approx(0.2**2, rel=0.3)
    rest = (5 * 0.2 + 0.4) / 6  # of a Saturday, which has 0.4
    saturday = (0.4 - rest) * np.log(0.4 * (1 - rest) / (rest * 0.6))
    assert day.variation == pytest.approx(saturday, rel=0.2)
    assert still.variation is not None
    assert still.variation < 0.01


def test_rows_in_any_order_and_without_a_time_zone_give_the_same(
    matrix: np.ndarray, times: pd.Series
) -> None:
    profile, shuffled = Profile.fit(matrix, SCHEMA), np.random.default_rng(3).permutation(ROWS)
    expected = varied(profile, matrix, groups_of(times, ROWS))
    naive = times.dt.tz_localize(None).iloc[shuffled]
    assert varied(profile, matrix[shuffled], groups_of(naive, ROWS)) == expected


def test_few_rows_or_one_moment_tell_nothing(matrix: np.ndarray, times: pd.Series) -> None:
    (feature, *_) = Profile.fit(matrix, SCHEMA).features
    few = groups_of(times[:5000], 5000)
    assert variation(feature, matrix[:5000, 0], [few[0]]) is None
    once = groups_of([times[0]] * 5000, 5000)
    assert variation(feature, matrix[:5000, 0], once) is None
    gaps = groups_of(times.mask(times.dt.hour == 3), ROWS)
    assert variation(feature, matrix[:, 0], gaps) is not None


def test_a_model_of_ones_own_is_told_the_times_beside_its_rows(
    matrix: np.ndarray, times: pd.Series
) -> None:
    rows = slice(30_000)
    frame = pd.DataFrame(matrix[rows], columns=["x", "day", "still"])
    goal = pd.Series(frame["x"] > np.random.default_rng(5).normal(size=len(frame)), name="y")
    adopted = adopt(LogisticRegression().fit(frame, goal), frame, goal, times=times[rows])
    x, *_ = adopted.profile.features
    scores, labels = adopted.profile.scores, adopted.profile.labels
    variations = [each.variation for each in (x, scores, labels) if each is not None]
    assert [each is not None and each > 0 for each in variations] == [True] * 3
    with pytest.raises(DataError, match="there are 60000 times for 30000 rows"):
        adopt(LogisticRegression().fit(frame, goal), frame, goal, times=times)


def test_a_training_that_is_told_the_times_tells_how_far_its_features_move(
    matrix: np.ndarray, times: pd.Series
) -> None:
    rows = slice(40_000)
    frame = pd.DataFrame(matrix[rows], columns=["x", "day", "still"])
    frame["y"] = (frame["x"] + np.random.default_rng(4).normal(size=len(frame)) > 0).astype(int)
    plain = train(frame, "y", rounds=2)
    told = train(frame.assign(at=times[rows]), "y", rounds=2, times="at")
    assert told.schema == plain.schema
    assert told.profile == Profile.from_json(told.files["drift"][flavor.PROFILE])
    everything = [*told.profile.features, told.profile.scores, told.profile.labels]
    variations = [each.variation for each in everything if each is not None]
    assert len(variations) == 5
    assert all(each is not None for each in variations)
    assert max(filter(None, variations)) > 0.02
    forgotten = [replace(each, variation=None) for each in told.profile.features]
    assert forgotten == list(plain.profile.features)
    with pytest.raises(DataError, match="the times are float64, no dates"):
        train(frame, "y", times="x")
    with pytest.raises(DataError, match="column 'when' is missing"):
        train(frame, "y", times="when")
