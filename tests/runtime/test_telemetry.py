"""Lines: small enough, read as they were written, and adding up."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_runtime.profile import MOST_BINS, Histogram
from modelops_runtime.telemetry import (
    BUSY,
    LATENCY_EDGES,
    LONGEST_ERROR,
    LONGEST_LINE,
    FeatureCounts,
    Line,
    TelemetryError,
    Verdict,
    latency_bin,
    merge,
)

pytestmark = pytest.mark.unit

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LINE = Line(
    model="staging/employment",
    revision="4f1c0a9b2d",
    edges="0123456789abcdef",
    start=START,
    seconds=300,
    pod="employment-6d8f-x2x",
    worker="ab12",
    form="treelite",
    rows=15,
    outliers=1,
    requests=4,
    errors={"4xx": 1},
    latency=((20, 3), (21, 1)),
    scores=Histogram((0, 15, 0)),
    labels=Histogram((5, 10)),
    features=(FeatureCounts(0, Histogram((1, 13, 0), missing=1)),),
)


def test_writes_what_the_design_says() -> None:
    (line,) = LINE.encode()
    assert line == (
        b'{"k":"mdw1","m":"staging/employment","r":"4f1c0a9b2d","e":"0123456789abcdef",'
        b'"w":"2026-03-01T12:00:00Z","d":300,"p":"employment-6d8f-x2x","wk":"ab12","ch":0,"cc":1,'
        b'"fp":"treelite","n":15,"o":1,"q":4,"x":{"4xx":1},"l":[[20,3],[21,1]],'
        b'"y":{"h":[0,15,0],"na":0,"nw":0},"c":{"h":[5,10],"na":0,"nw":0},'
        b'"f":[{"i":0,"h":[1,13,0],"na":1,"nw":0}]}\n'
    )


counts = st.integers(0, 10**9)
names = st.text("abc-/xyz019", max_size=63)
histograms = st.builds(
    Histogram, st.lists(counts, max_size=MOST_BINS + 2).map(tuple), counts, counts
)


@st.composite
def lines(draw: st.DrawFn, bins: int | None = None) -> Line:
    each = (
        histograms
        if bins is None
        else st.builds(
            Histogram, st.lists(counts, min_size=bins, max_size=bins).map(tuple), counts, counts
        )
    )
    rows, periods = draw(counts), draw(counts)
    edges = len(LATENCY_EDGES)
    return Line(
        model=draw(names),
        revision="r1",
        edges="e1",
        start=START + timedelta(seconds=draw(st.integers(0, 10**6))),
        seconds=draw(st.integers(1, 3600)),
        pod=draw(names),
        worker=draw(names),
        form=draw(st.sampled_from(["linear", "treelite", "pyfunc", "lightgbm"])),
        rows=rows,
        outliers=draw(st.integers(0, rows)),
        requests=draw(counts),
        errors=draw(st.dictionaries(st.sampled_from(["4xx", "5xx", BUSY]), counts)),
        periods=periods,
        throttled=draw(st.integers(0, periods)),
        latency=tuple(sorted(draw(st.dictionaries(st.integers(0, edges), counts)).items())),
        scores=draw(st.none() | each),
        labels=draw(st.none() | each),
        features=tuple(
            FeatureCounts(index, histogram)
            for index, histogram in enumerate(draw(st.lists(each, max_size=12)))
        ),
    )


@given(lines())
def test_is_read_as_it_was_written_in_chunks_of_at_most_4000_bytes(line: Line) -> None:
    written = line.encode()
    assert all(len(each) <= LONGEST_LINE and each.endswith(b"\n") for each in written)
    assert all(each.count(b"\n") == 1 for each in written)
    parsed = [Line.parse(each) for each in written]
    chunks = [each for each in parsed if each is not None]
    assert [each.chunk for each in chunks] == list(range(len(written)))
    assert all(each.chunks == len(written) for each in chunks)
    assert merge(chunks) == line
    assert merge([*chunks, *reversed(chunks)]) == line


def test_large_features_share_chunks_as_far_as_they_fit() -> None:
    features = tuple(FeatureCounts(i, Histogram((1000,) * 22)) for i in range(100))
    written = replace(LINE, features=features).encode()
    assert len(written) == 4
    assert all(len(each) > LONGEST_LINE - 200 for each in written[:-1])


def test_a_feature_that_fits_into_no_line_is_an_error() -> None:
    huge = FeatureCounts(0, Histogram((10**9,) * 1000))
    with pytest.raises(TelemetryError, match="does not fit into a line"):
        replace(LINE, features=(huge,)).encode()


# On a busy machine it takes long to make the lines.
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(lines(bins=3), min_size=2, max_size=6), st.integers(1, 5))
def test_merges_by_addition_in_any_order(several: list[Line], cut: int) -> None:
    mine = [
        replace(line, model="m", worker=str(number), scores=line.scores or Histogram((0, 0, 0)))
        for number, line in enumerate(several)
    ]
    total = merge(mine)
    assert total.rows == sum(each.rows for each in mine)
    assert total.errors.get("4xx", 0) == sum(each.errors.get("4xx", 0) for each in mine)
    assert total.periods == sum(each.periods for each in mine)
    assert total.throttled == sum(each.throttled for each in mine)
    assert sum(dict(total.latency).values()) == sum(n for each in mine for _, n in each.latency)
    for index in range(12):
        of_each = [f.histogram for each in mine for f in each.features if f.index == index]
        of_all = [f.histogram for f in total.features if f.index == index]
        assert of_all == ([sum(of_each[1:], of_each[0])] if of_each else [])
    left, right = mine[:cut], mine[cut:]
    if left and right:
        parts = [replace(merge(part), worker=name) for part, name in ((left, "l"), (right, "r"))]
        assert replace(merge(parts), worker="", pod="") == replace(total, worker="", pod="")
    assert merge(reversed(mine)) == total


def test_lines_of_other_models_do_not_merge() -> None:
    with pytest.raises(ValueError, match="lines differ in revision"):
        merge([LINE, replace(LINE, revision="other", worker="b")])
    with pytest.raises(ValueError, match="no lines"):
        merge([])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "INFO: started",
        '{"k":"mdw2"}',
        '{"kind":"mdw1"}',
        '["mdw1"]',
        'a user said "mdw1" here',
        b"\xff\xfe",
        '"mdw1"',
    ],
)
def test_other_lines_are_not_ours(text: str | bytes) -> None:
    assert Line.parse(text) is None


def changed(**changes: Any) -> bytes:
    return orjson.dumps(orjson.loads(LINE.encode()[0]) | changes)


@pytest.mark.parametrize(
    "text",
    [
        LINE.encode()[0][:-20],
        b"2026 INFO " + LINE.encode()[0],
        LINE.encode()[0][:100] + LINE.encode()[0],
        changed(w="yesterday"),
        changed(w=5),
        changed(d=0),
        changed(d="300"),
        changed(n=-1),
        changed(n=1.5),
        changed(n=True),
        changed(o=16),
        changed(ch=1),
        changed(cc=0),
        changed(p=None),
        changed(l=[[72, 1]]),
        changed(l=[3]),
        changed(x=[1]),
        changed(f=[{"i": 0}]),
        changed(f=[{"i": 0, "h": [-1], "na": 0, "nw": 0}]),
        changed(y=None),
    ],
)
def test_damaged_lines_of_ours_are_errors(text: bytes) -> None:
    with pytest.raises(TelemetryError):
        Line.parse(text)


@given(st.binary(max_size=30), st.integers(0, 400))
def test_whatever_hits_a_line_it_is_read_ignored_or_refused(noise: bytes, place: int) -> None:
    line = LINE.encode()[0]
    try:
        Line.parse(line[:place] + noise + line[place:])
    except TelemetryError:
        return


def test_keys_in_another_order_and_spaces_do_not_matter() -> None:
    data = orjson.loads(LINE.encode()[0])
    turned = orjson.dumps(dict(reversed(data.items())), option=orjson.OPT_INDENT_2)
    assert Line.parse(turned) == LINE
    assert Line.parse(turned.decode()) == LINE


@pytest.mark.parametrize(
    ("seconds", "bin_"),
    [(0.0, 0), (9.9e-6, 0), (1e-5, 1), (0.00099, 20), (0.001, 21), (99.9, 70), (100.0, 71)],
)
def test_latencies_fall_into_ten_bins_a_decade(seconds: float, bin_: int) -> None:
    assert latency_bin(seconds) == bin_
    assert len(LATENCY_EDGES) == 71


def test_the_end_of_a_window() -> None:
    assert LINE.end == START + timedelta(minutes=5)


def test_verdicts_of_detectors_add_up_and_tell_why_one_failed() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    found: tuple[dict[str, Verdict], ...] = (
        {"drift": Verdict(1, 1)},
        {"drift": Verdict(failed=1, error="x" * 500)},
        {},
    )
    lines = [
        Line(model="a/b", revision="r", start=start, seconds=60, pod=str(pod), verdicts=each)
        for pod, each in enumerate(found)
    ]
    written = [text for each in lines for text in each.encode()]
    total = merge([line for text in written if (line := Line.parse(text)) is not None])
    assert total.verdicts == {"drift": Verdict(1, 1, 1, "x" * LONGEST_ERROR)}
    assert b'"v"' not in written[2]
    with pytest.raises(TelemetryError, match="more is found than was judged"):
        Line.parse(written[0].replace(b'"n":1,"k":1', b'"n":1,"k":2'))
