"""The last day beside the windows of late: what it sums, keeps and says."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.resources import DeploymentHealth, DriftThresholds, Monitoring
from modelops_operator.core.health.day import BLOCK, BLOCKS, Day
from modelops_operator.core.health.evaluate import evaluate, renewed
from modelops_operator.core.health.histograms import Histograms, Key
from modelops_operator.core.health.statistics import Counts
from modelops_operator.core.health.watch import Reporter
from modelops_operator.core.health.windows import History

from tests.health.builders import REVISION, counted, line, normal_profile, watch

pytestmark = pytest.mark.unit

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BLIND = Monitoring(window=HOUR, drift=DriftThresholds(warn=Decimal(8), alert=Decimal(9)))
PROFILE = normal_profile(3)
SETTLE = timedelta(seconds=5)
keys = st.tuples(st.sampled_from(["a", "b"]), st.integers(-2, 3))
histograms = st.dictionaries(
    keys, st.lists(st.integers(0, 10**9), min_size=3, max_size=3).map(np.array), max_size=4
)


@given(st.lists(st.tuples(st.integers(0, 23), histograms), max_size=12))
def test_sums_are_exact(windows: list[tuple[int, dict[Key, Counts]]]) -> None:
    day = Day()
    expected: dict[tuple[int, Key], Counts] = {}
    day.add(MIDNIGHT - HOUR, Histograms({("a", 0): np.ones(3, dtype=np.int64)}))
    for hour, found in windows:
        day.add(MIDNIGHT + hour * HOUR, Histograms(found))
        for key, counts in found.items():
            expected[hour // 8, key] = expected.get((hour // 8, key), 0) + counts
    sums = {
        ((start - MIDNIGHT) // BLOCK, key): counts
        for start, found in day.sums(MIDNIGHT + 24 * HOUR).items()
        for key, counts in found.items()
    }
    assert {place: tuple(counts) for place, counts in sums.items()} == {
        place: tuple(counts) for place, counts in expected.items()
    }


def test_a_day_is_known_from_its_beginning_to_its_end() -> None:
    day, some = Day(), Histograms({("a", 0): np.array([1, 2])})
    known = []
    for hour in range(34):
        day.add(MIDNIGHT + hour * HOUR, some)
        known.append(len(day.sums(MIDNIGHT + (hour + 1) * HOUR)))
    assert known == [0] * 23 + [BLOCKS] * 11


def told(hours: int, shift: Callable[[int], float]) -> Iterator[tuple[int, str, str]]:
    """Serve for so many hours, the first feature shifted; give each hour's reason and message.

    What is kept of the day between verdicts makes no difference.
    """
    history, standing = History(REVISION, settle=SETTLE), None
    watched = watch(
        drift=PROFILE,
        monitoring=Monitoring(window=HOUR),
        reporters=(Reporter(pod="pod-a", since=MIDNIGHT),),
    )
    for hour in range(hours):
        columns = np.random.default_rng(hour).standard_normal((4000, 3))
        columns[:, 0] += shift(hour)
        served = line(
            start=MIDNIGHT + hour * HOUR,
            seconds=3600,
            rows=4000,
            requests=4000,
            edges=PROFILE.edges_hash,
            features=counted(PROFILE, columns),
        )
        now = MIDNIGHT + (hour + 1) * HOUR + SETTLE
        history.add([served], now)
        health = evaluate(history, watched, now)
        standing = renewed(standing, history, watched, now)
        assert standing.health.conditions == health.conditions
        blind = replace(watched, monitoring=BLIND)
        assert renewed(standing, history, blind, now).health == evaluate(history, blind, now)
        DeploymentHealth.model_validate(health.evidence)
        drift = next(one for one in health.conditions if one.type is ConditionType.DRIFT_DETECTED)
        yield hour, str(drift.reason), drift.message


def test_what_is_small_and_lasts_is_a_warning_that_names_the_day() -> None:
    found = list(told(68, lambda hour: 0.28 if hour < 40 else 0.0))
    reasons = {hour: reason for hour, reason, _ in found}
    warned = [hour for hour, reason in reasons.items() if reason == "DriftWarning"]
    assert warned[0] in range(24, 30)  # once a day is whole, and its last windows have come
    assert warned[-1] in range(48, 62)  # until two of three blocks are as they were
    assert warned == list(range(warned[0], warned[-1] + 1))
    message = found[warned[0]][2]
    assert message.startswith("1 of 3 features moved past the warning at 0.07: x0 (PSI 0.0")
    assert ", for a day)" in message


def test_what_happens_for_some_hours_is_not_warned_of_afterwards() -> None:
    found = {hour: reason for hour, reason, _ in told(40, lambda hour: hour in {9, 10, 11})}
    assert {hour for hour, reason in found.items() if reason == "DriftAlert"} == {10, 11, 12}
    assert {found[hour] for hour in range(13, 40)} == {"NoDrift"}


def test_a_daily_rhythm_is_no_drift() -> None:
    found = told(60, lambda hour: 0.2 * math.sin(hour / 24 * math.tau))
    assert {reason for hour, reason, _ in found if hour} == {"NoDrift"}
