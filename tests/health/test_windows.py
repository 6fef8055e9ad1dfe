"""Every line is counted once, whatever comes in whatever order."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_operator.core.health.windows import (
    GROUPS,
    LONGEST,
    MINIMUM_ROWS,
    MOST_EDGES,
    MOST_FEATURES,
    MOST_WINDOWS,
    SCORES,
    Groups,
    History,
    TelemetryStore,
    Window,
)
from modelops_runtime.profile import Histogram
from modelops_runtime.telemetry import Line

from tests.health.builders import REVISION, START, WINDOW, line

pytestmark = pytest.mark.unit

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SETTLE = timedelta(seconds=5)
HASH = "e" * 16


def history(lines: Sequence[Line] = (), *, windows: int = 1) -> History:
    """Give the history as it is when that many windows have ended and settled."""
    found = History(REVISION, settle=SETTLE)
    found.add(lines, after(windows))
    return found


def after(windows: int) -> datetime:
    return START + windows * WINDOW + SETTLE


def histogram(*counts: int) -> Histogram:
    return Histogram(counts=counts, missing=1, unseen=0)


def test_lines_of_pods_workers_and_chunks_add_up() -> None:
    found = history(
        [
            line(pod="a", worker="1", chunk=0, chunks=2, rows=10, requests=4, outliers=1,
                 errors={"4xx": 1, "5xx": 2}, latency=((3, 4),), features={0: histogram(3, 6)}),
            line(pod="a", worker="1", chunk=1, chunks=2, features={1: histogram(9, 0)}),
            line(pod="a", worker="2", rows=5, requests=2, latency=((3, 1), (9, 1)),
                 features={0: histogram(1, 3)}, scores=histogram(2, 2)),
            line(pod="b", worker="1", rows=1, requests=1, features={0: histogram(0, 0)}),
        ]
    ).groups(after(1)).open  # fmt: skip
    assert found is not None
    assert (found.rows, found.requests, found.outliers) == (16, 7, 1)
    assert (found.client_errors, found.server_errors) == (1, 2)
    assert found.latency == {3: 5, 9: 1}
    assert {key: list(counts) for key, counts in found.histograms.items()} == {
        (HASH, 0): [4, 9, 3, 0],
        (HASH, 1): [9, 0, 1, 0],
        (HASH, SCORES): [2, 2, 1, 0],
    }
    assert (found.start, found.end) == (START, START + WINDOW)


lines = st.lists(
    st.builds(
        line,
        window=st.integers(0, 8),
        pod=st.sampled_from(["a", "b"]),
        worker=st.sampled_from(["1", "2"]),
        chunk=st.integers(0, 1),
        chunks=st.just(2),
        rows=st.sampled_from([0, 1, 400, 700, 3000]),
        requests=st.integers(0, 5),
        features=st.dictionaries(
            st.integers(0, 2), st.builds(histogram, st.integers(0, 9), st.integers(0, 9))
        ),
    ),
    max_size=40,
    unique_by=lambda each: (each.pod, each.worker, each.start, each.chunk),
)


def plain(groups: Groups) -> object:
    """Give something that can be compared: arrays cannot."""
    windows = [window for window in (*groups.closed, groups.open) if window is not None]
    return len(groups.closed), [
        (
            replace(window, histograms={}),
            {key: tuple(counts) for key, counts in window.histograms.items()},
        )
        for window in windows
    ]


@patient
@given(lines, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_matter(found: list[Line], random: Random) -> None:
    once = history(found, windows=9)
    often = found + random.choices(found, k=len(found)) if found else []
    random.shuffle(often)
    again = History(REVISION, settle=SETTLE)
    for start in range(0, len(often), 7):
        again.add(often[start : start + 7], after(9))
        again.add(often[:start], after(9))
    # What melted cannot be found twice either; it is only the order that may cost late lines.
    if not again.late:
        assert plain(again.groups(after(9))) == plain(once.groups(after(9)))


@patient
@given(lines, st.randoms(use_true_random=False))
def test_order_does_not_matter_within_what_has_not_melted(
    found: list[Line], random: Random
) -> None:
    recent = [each for each in found if each.start >= START + 7 * WINDOW]
    shuffled = random.sample(recent, len(recent))
    one, other = history(recent, windows=9), History(REVISION, settle=SETTLE)
    for each in shuffled:
        other.add([each, each], after(9))
    assert not other.late
    assert plain(one.groups(after(9))) == plain(other.groups(after(9)))


@patient
@given(lines)
def test_melting_changes_nothing(found: list[Line]) -> None:
    """Told window by window, with the old ones melting, the groups are those of all at once."""
    gradually = History(REVISION, settle=SETTLE)
    for number in range(9):
        gradually.add(
            [each for each in found if each.start == START + number * WINDOW], after(number + 1)
        )
    assert plain(gradually.groups(after(9))) == plain(history(found, windows=9).groups(after(9)))


@patient
@given(lines)
def test_every_row_is_counted_once(found: list[Line]) -> None:
    groups = history(found, windows=9).groups(after(9))
    total = sum(each.rows for each in found)
    counted = sum(window.rows for window in (*groups.closed, groups.open) if window)
    assert counted <= total
    if len(groups.closed) < 3:
        assert counted == total
    assert all(window.rows >= MINIMUM_ROWS for window in groups.closed)
    assert groups.open is None or groups.open.rows < MINIMUM_ROWS


def test_a_window_counts_when_it_has_settled() -> None:
    found = history([line(rows=2000)])
    assert found.groups(START + WINDOW + SETTLE - timedelta(seconds=1)) == Groups()
    assert len(found.groups(START + WINDOW + SETTLE).closed) == 1


def test_a_late_line_revises_its_window() -> None:
    found = history([line(rows=900), line(window=1, rows=950)], windows=2)
    assert [window.rows for window in found.groups(after(2)).closed] == [1850]
    found.add([line(worker="w2", rows=200)], after(2))
    groups = found.groups(after(2))
    assert [window.rows for window in groups.closed] == [1100]
    assert groups.open is not None
    assert groups.open.rows == 950


def test_a_line_that_comes_after_its_window_melted_is_left_out() -> None:
    found = history([line(rows=900), line(window=9, rows=1)], windows=10)
    found.add([line(worker="w2", rows=200), line(rows=900)], after(10))
    assert found.late == 2
    groups = found.groups(after(10))
    assert groups.open is not None
    assert groups.open.rows == 901


def test_small_windows_are_merged_until_there_are_enough_rows() -> None:
    found = history([line(window=number, rows=400) for number in range(10)], windows=10)
    groups = found.groups(after(10))
    assert [window.rows for window in groups.closed] == [1200, 1200, 1200]
    assert groups.open is not None
    assert groups.open.rows == 400
    assert groups.closed[0].start == START
    assert groups.closed[-1].end == START + 9 * WINDOW


def test_windows_without_traffic_do_not_stretch_a_group() -> None:
    quiet = [line(window=number) for number in range(5)]
    groups = history([*quiet, line(window=5, rows=1000)], windows=6).groups(after(6))
    assert groups.closed[0].start == START + 5 * WINDOW


def test_what_is_a_day_old_says_nothing() -> None:
    found = history([line(rows=5000)])
    assert found.groups(START + LONGEST).closed
    assert not found.groups(START + LONGEST + WINDOW).closed
    old = history([line(rows=5000)], windows=1000)
    assert old.late == 1


def test_rows_more_than_a_day_apart_are_not_merged() -> None:
    found = History(REVISION, settle=SETTLE)
    for number in (0, 289):
        found.add([line(window=number, rows=600)], after(number + 1))
    assert not found.groups(after(290)).closed


def test_other_revisions_are_not_looked_at() -> None:
    assert history([line(rows=5, revision="other")]).groups(after(1)) == Groups()


def test_lines_of_the_future_are_left_out() -> None:
    found = history([line(window=3, rows=5000)], windows=1)
    assert found.skewed == after(1)
    assert not found.heard()
    assert found.groups(after(9)) == Groups()


def test_an_unfinished_window_is_not_the_future() -> None:
    """A worker that shuts down reports what it has."""
    found = history([line(window=1, rows=5000)], windows=1)
    assert found.skewed is None
    assert found.groups(after(2)).closed


def test_missing_chunks_are_told() -> None:
    found = history([line(chunk=0, chunks=2, rows=10)])
    assert found.incomplete(after(1)) == 1
    found.add([line(chunk=1, chunks=2)], after(1))
    assert found.incomplete(after(1)) == 0


def test_histograms_of_another_shape_are_left_out() -> None:
    found = history(
        [
            line(pod="a", rows=3, features={0: histogram(1, 2)}),
            line(pod="b", rows=3, features={0: histogram(1, 2, 3)}),
        ]
    ).groups(after(1))
    assert found.open is not None
    assert found.open.rows == 3


def test_silence_differs_from_no_traffic() -> None:
    silent, quiet = history([]), history([line()])
    assert (silent.heard(), silent.traffic) == ({}, None)
    assert (quiet.heard(), quiet.traffic) == ({"pod-a": START + WINDOW}, None)
    assert history([line(requests=1)]).traffic == START + WINDOW


def test_memory_is_bounded() -> None:
    found = History(REVISION, settle=SETTLE)
    for number in range(2000):
        found.add([line(window=number, rows=1, pod=f"pod-{number}")], after(number + 1))
    assert len(found._slots) <= 4
    assert len(found.heard()) <= LONGEST / WINDOW + 1


def test_no_group_is_kept_that_later_ones_have_replaced() -> None:
    found = History(REVISION, settle=SETTLE)
    for window in range(30):
        found.add([line(window=window, rows=MINIMUM_ROWS)], after(window + 1))
        assert len(found.groups(after(window + 1)).closed) == min(window + 1, GROUPS)
    assert found._melted.closed == ()
    for later in range(31, 60):  # nobody asks any more: the last ones melt
        found.add([], after(later))
        assert [group.end for group in found.groups(after(later)).closed] == [
            START + number * WINDOW for number in (28, 29, 30)
        ]
    assert len(found._melted.closed) == GROUPS


def test_merging_windows_is_associative_and_commutative() -> None:
    windows = [
        Window(
            start=START + number * WINDOW,
            end=START + (number + 1) * WINDOW,
            rows=number,
            latency={number: 1, 7: 2},
            histograms={(HASH, number % 2): np.array([number, 1])},
            forms=frozenset({"treelite"}),
        )
        for number in range(3)
    ]
    a, b, c = windows
    sums = {repr(Groups(open=total)) for total in ((a + b) + c, a + (b + c))}
    assert len(sums) == 1
    assert (a + b).rows == (b + a).rows
    assert (a + b).latency == (b + a).latency == {0: 1, 1: 1, 7: 4}


def test_the_store_keeps_revisions_apart_and_few() -> None:
    store = TelemetryStore(settle=SETTLE)
    for number in range(5):
        store.add("key", [line(rows=10, revision=f"r{number}")], after(1), damaged=number == 4)
    known = [store.history("key", f"r{number}").groups(after(1)).open for number in range(5)]
    assert [found.rows if found else None for found in known] == [None, None, 10, 10, 10]
    assert store.history("key", "r4").damaged == after(1)
    assert store.history("other", "r4").heard() == {}
    store.retain({"other"})
    assert store.history("key", "r4").heard() == {}


def test_a_pod_that_makes_everything_up_takes_little_memory_and_time() -> None:
    found, now = history(), START + timedelta(hours=1)
    flood = (
        line(
            start=now - timedelta(seconds=number % 300),
            seconds=1 + number % 60,
            worker=str(number),
            edges=f"{number:016x}",
            rows=1,
            features={index: Histogram((1,) * 20) for index in range(30)},
        )
        for number in range(800)
    )
    tracemalloc.start()
    found.add(flood, now)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10_000_000
    assert found.damaged == now
    span = found.groups(now + timedelta(minutes=1)).span
    assert span is not None
    assert len(span.histograms) == MOST_EDGES * 30
    found.add([line(edges=HASH, features={MOST_FEATURES: histogram(1)}, rows=1)], now)
    after_all = found.groups(now + timedelta(minutes=1)).span
    assert after_all is not None
    assert after_all.rows == span.rows


def test_the_oldest_of_too_many_windows_are_closed_early() -> None:
    found, shortest = history(), timedelta(seconds=1)
    now = START + 2 * MOST_WINDOWS * shortest
    lines = [
        line(start=START + number * shortest, seconds=1, rows=1, requests=1)
        for number in range(2 * MOST_WINDOWS)
    ]
    found.add(lines, now)
    span = found.groups(now + SETTLE).span
    assert span is not None
    assert span.rows == 2 * MOST_WINDOWS
    found.add([line(start=START, seconds=1, worker="late", rows=1)], now)
    assert found.late == 1


def test_damaged_lines_are_told_though_no_other_came() -> None:
    store, now = TelemetryStore(settle=SETTLE), after(1)
    store.add("mine", [], now, damaged=3)
    store.add("another", [], now)
    assert store.history("mine", REVISION).damaged == now
    assert store.history("another", REVISION).damaged is None
    store.retain(["another"])
    assert store.history("mine", REVISION).damaged is None
