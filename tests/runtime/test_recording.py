"""Windows of telemetry: what is counted where, and what happens when output or clock misbehave."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelops_runtime.counting import Block, Identity
from modelops_runtime.profile import Histogram, Profile
from modelops_runtime.recording import Recorder
from modelops_runtime.schema import Input, Matrix, Output, Schema
from modelops_runtime.telemetry import BUSY, Line, merge
from modelops_runtime.throttling import PLACES, Throttling

pytestmark = pytest.mark.unit

SCHEMA = Schema((Input(name="x", kind="number"),), Output(kind="regressor", name="y"))
REFERENCE = np.linspace(0, 1, 101).reshape(-1, 1)
PROFILE = Profile.fit(REFERENCE, SCHEMA, scores=REFERENCE[:, 0])
IDENTITY = Identity(model="ns/m", revision="r", pod="p", seconds=60, form="treelite")


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 6000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def recorder(
    clock: Clock, write: Callable[[bytes], object], profile: Profile | None = PROFILE
) -> Recorder:
    return Recorder(IDENTITY, profile, write=write, clock=clock)


def note(made: Recorder, values: list[float], outliers: int = 0) -> Matrix:
    matrix = np.array(values, dtype=np.float64).reshape(-1, 1)
    made.note(matrix, matrix[:, 0], rows=len(matrix), outliers=outliers, seconds=0.001)
    return matrix


def parsed(written: list[bytes]) -> list[Line]:
    lines = [Line.parse(each) for each in written]
    return [each for each in lines if each is not None]


def test_predicted_classes_are_counted_where_the_reference_knows_them() -> None:
    output = Output(kind="classifier", name="y", classes=(0, 1))
    profile = Profile.fit(
        REFERENCE, Schema(SCHEMA.inputs, output), labels=np.zeros(len(REFERENCE), dtype=np.int64)
    )
    told = []
    for known in (profile, replace(profile, labels=None)):
        clock, written = Clock(), list[bytes]()
        made = recorder(clock, written.append, known)
        for labels in ([1, 1, 0], [7]):
            made.note(REFERENCE[: len(labels)], None, labels, rows=1, outliers=0, seconds=0.1)
        assert made.close()
        told += [line.labels for line in parsed(written)]
    assert told == [Histogram((1, 2), unseen=1), None]


def test_rows_are_counted_in_the_window_they_came_in() -> None:
    clock, written = Clock(), list[bytes]()
    made = recorder(clock, written.append)
    first = note(made, [0.1, 0.2, 9.0], outliers=1)
    made.fail(422, 0.0001)
    clock.now += 60
    second = note(made, [0.5])
    made.fail(500, 0.1)
    assert made.close()
    one, two = parsed(written)
    assert [line.start.timestamp() for line in (one, two)] == [6000, 6060]
    assert (one.rows, one.outliers, one.requests, one.errors) == (3, 1, 2, {"4xx": 1})
    assert (two.rows, two.outliers, two.requests, two.errors) == (1, 0, 2, {"5xx": 1})
    assert [each.histogram for each in one.features] == PROFILE.count(first)
    assert [each.histogram for each in two.features] == PROFILE.count(second)
    assert PROFILE.scores is not None
    assert two.scores == PROFILE.scores.count(second[:, 0])
    assert (one.edges, one.form, one.pod) == (PROFILE.edges_hash, "treelite", "p")
    assert one.worker == two.worker


def test_a_window_without_requests_is_written_too() -> None:
    clock, written = Clock(), list[bytes]()
    made = recorder(clock, written.append)
    for _ in range(3):
        made.tick()
        clock.now += 60
    made.tick()
    assert made.close()
    lines = parsed(written)
    assert [line.start.timestamp() for line in lines] == [6000, 6060, 6120, 6180]
    assert {(line.rows, line.requests, line.features) for line in lines} == {(0, 0, ())}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.lists(st.floats(-1, 2), max_size=3000), st.floats(0, 90)), max_size=8))
def test_every_row_is_counted_once(requests: list[tuple[list[float], float]]) -> None:
    clock, written = Clock(), list[bytes]()
    made = recorder(clock, written.append)
    for values, pause in requests:
        note(made, values)
        clock.now += pause
        made.tick()
    assert made.close(timeout=30)
    total = merge(parsed(written))
    values = [each for request, _ in requests for each in request]
    assert total.rows == len(values)
    assert total.requests == len(requests)
    if values:
        known = PROFILE.count(np.array(values).reshape(-1, 1))
        assert [each.histogram for each in total.features] == known


def test_a_clock_set_back_does_not_repeat_a_line() -> None:
    clock, written = Clock(), list[bytes]()
    made = recorder(clock, written.append)
    note(made, [0.1])
    clock.now += 60
    note(made, [0.2])
    clock.now -= 60
    note(made, [0.3])
    assert made.close()
    lines = parsed(written)
    assert len({(line.worker, line.start) for line in lines}) == len(lines) == 3
    assert merge(lines).rows == 3


def test_without_a_profile_only_requests_are_counted() -> None:
    written = list[bytes]()
    made = recorder(Clock(), written.append, profile=None)
    made.note(None, np.array([0.5]), rows=1, outliers=0, seconds=0.5)
    assert made.close()
    (line,) = parsed(written)
    assert (line.rows, line.requests, line.edges, line.features, line.scores) == (
        1,
        1,
        "",
        (),
        None,
    )


def test_what_is_hidden_is_never_written() -> None:
    schema = Schema(
        (Input(name="x", kind="number"), Input(name="pay", kind="number")), SCHEMA.output
    )
    rows = np.random.default_rng(0).normal(size=(500, 2))
    profile = Profile.fit(rows, schema)
    written = list[bytes]()
    made = Recorder(IDENTITY, profile, hidden=frozenset({1}), write=written.append, clock=Clock())
    made.note(rows, None, rows=500, outliers=0, seconds=0.001)
    assert made.close()
    (line,) = parsed(written)
    assert line.rows == 500
    (feature,) = line.features
    assert (feature.index, feature.histogram) == (0, profile.count(rows)[0])


def test_a_broken_output_loses_lines_and_nothing_else() -> None:
    def fail(line: bytes) -> None:
        raise BrokenPipeError(len(line))

    clock, lost = Clock(), list[int]()
    made = Recorder(IDENTITY, PROFILE, write=fail, clock=clock, on_lost=lost.append)
    for _ in range(3):
        note(made, [0.1])
        clock.now += 60
        made.tick()
    assert made.close()
    assert lost == [1, 1, 1, 1]


def test_a_blocked_output_holds_up_nothing() -> None:
    opened, written, clock = threading.Event(), list[bytes](), Clock()

    def write(line: bytes) -> None:
        opened.wait(30)
        written.append(line)

    made = recorder(clock, write)
    for _ in range(200):
        note(made, [0.5] * 3000)
        clock.now += 60
    assert not made.close(timeout=0.05)
    opened.set()
    made._thread.join(30)
    lines = parsed(written)
    assert len(lines) == 200
    assert sum(line.rows for line in lines) == 200 * 3000


def test_what_is_noted_is_told_to_the_metrics() -> None:
    blocks = list[Block]()
    made = Recorder(IDENTITY, None, write=len, clock=Clock(), on_block=blocks.append)
    made.note(None, None, rows=7, outliers=2, seconds=0.5)
    made.fail(422, 0.1)
    assert made.close()
    assert sum(block.rows for block in blocks) == 7
    assert sum(block.outliers for block in blocks) == 2
    assert [each for block in blocks for each in block.durations] == [0.5, 0.1]


def test_the_periods_that_the_cpu_limit_cut_are_told_of_each_window(tmp_path: Path) -> None:
    stat = tmp_path / "cpu.stat"

    def let(periods: int, throttled: int) -> None:
        # As cgroup v2 has it; v1 calls the last line throttled_time.
        stat.write_text(
            f"usage_usec 5\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec 9\n"
        )

    let(100, 90)  # before the server started
    clock, written = Clock(), list[bytes]()
    found = Throttling([tmp_path / "absent", stat])
    made = Recorder(IDENTITY, PROFILE, write=written.append, clock=clock, throttling=found)
    let(700, 240)
    note(made, [0.5])
    made.tick()
    assert made.close()
    (line,) = parsed(written)
    assert (line.periods, line.throttled) == (600, 150)
    assert found.since() == (0, 0)
    let(0, 0)  # a new cgroup begins at nothing
    assert found.since() == (0, 0)


def test_without_a_limit_nothing_is_told_of_throttling(tmp_path: Path) -> None:
    damaged = tmp_path / "cpu.stat"
    damaged.write_text("nr_periods many\nwhat")
    for places in ([], [tmp_path / "absent"], [damaged], PLACES):
        written = list[bytes]()
        made = Recorder(
            IDENTITY, PROFILE, write=written.append, clock=Clock(), throttling=Throttling(places)
        )
        made.tick()
        assert made.close()
        (line,) = parsed(written)
        assert line.throttled <= line.periods
        assert (b'"t":' in written[0]) == (line.periods > 0)


def test_requests_that_are_turned_away_are_told_among_the_errors() -> None:
    written = list[bytes]()
    made = recorder(Clock(), written.append)
    for status in (503, 500, 503, 422):
        made.fail(status, 0.001)
    assert made.close()
    (line,) = parsed(written)
    assert line.errors == {"4xx": 1, "5xx": 3, BUSY: 2}
