"""Reading a log: what can be proved without a cluster. tests/e2e/test_pod_logs.py has the rest."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelops_operator.adapters.pod_logs import (
    LARGEST_READ,
    LONGEST_LINE,
    SETTLE,
    _Lines,
    _moment,
    _Reader,
    _refused,
    _Source,
    _worst,
)
from modelops_operator.adapters.telemetry import LARGEST_COUNT, Target, believable
from modelops_operator.api.facts import Failure
from modelops_operator.api.reasons import Reason
from modelops_runtime.profile import Histogram
from modelops_runtime.telemetry import FeatureCounts, Line

pytestmark = pytest.mark.unit

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LINE = Line(
    model="staging/employment",
    revision="0123456789",
    pod="pod-a",
    worker="w1",
    start=NOON,
    seconds=300,
    rows=10,
    requests=3,
)


def pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "pod-a",
            "uid": "uid-a",
            "labels": {"modelops.dev/revision": "0123456789"},
        },
        "status": {"containerStatuses": [{"name": "server", "restartCount": 0, **status}]},
    }


def source(**status: Any) -> _Source:
    return _Source.of(Target(namespace="staging", name="employment"), pod(**status))


RUNNING = source(state={"running": {}})


def reader(source: _Source = RUNNING) -> _Reader:
    return _Reader(source, cursor=NOON, former=NOON)


@pytest.mark.parametrize(
    ("status", "instance"),
    [
        ({"state": {"running": {}}}, 0),
        ({"state": {"terminated": {}}}, 0),
        ({"state": {"running": {}}, "restartCount": 3}, 3),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, None),
        ({"state": {"waiting": {}}, "lastState": {"terminated": {}}, "restartCount": 2}, 2),
        ({}, None),
    ],
)
def test_a_log_is_there_once_the_container_started(
    status: dict[str, Any], instance: int | None
) -> None:
    assert source(**status).instance == instance


def test_a_pod_that_has_no_status_yet_has_no_log() -> None:
    bare = {"metadata": pod()["metadata"]}
    target = Target(namespace="staging", name="employment")
    assert _Source.of(target, bare).instance is None


def encoded(line: Line = LINE) -> bytes:
    return line.encode()[0].rstrip(b"\n")


def test_a_line_is_handed_over_once() -> None:
    found = reader()
    for written in (NOON, NOON, NOON + timedelta(seconds=1)):
        found.take(written, encoded())
    assert found.hand_over().lines == [LINE, LINE]
    assert found.hand_over().lines == []


def test_what_was_met_in_the_last_two_reads_is_remembered() -> None:
    """A restart that is noticed late is read from before the last read."""
    found = reader()
    for minute in range(5):
        found.begin()
        found.take(NOON + timedelta(minutes=minute), encoded())
        found.cursor = NOON + timedelta(minutes=minute)
    found.hand_over()
    assert len(found.seen) == 2
    for minute in (3, 4):
        found.take(NOON + timedelta(minutes=minute), encoded())
    assert found.hand_over().lines == []


@pytest.mark.parametrize(
    "changes", [{"model": "staging/other"}, {"model": "prod/employment"}, {"revision": "f"}]
)
def test_a_pod_cannot_speak_for_others(changes: dict[str, Any]) -> None:
    found = reader()
    found.take(NOON, encoded(replace(LINE, **changes)))
    haul = found.hand_over()
    assert (haul.lines, haul.foreign) == ([], 1)


def test_the_pod_is_who_the_api_server_says_it_is() -> None:
    found = reader()
    found.take(NOON, encoded(replace(LINE, pod="somebody-else")))
    assert found.hand_over().lines == [LINE]


@pytest.mark.parametrize(
    "text",
    [
        encoded()[:-5],
        encoded().replace(b'"n":10', b'"n":-10'),
        encoded().replace(b'"n":10', b'"n":1e300'),
        encoded().replace(b'"n":10', b'"n":%d' % (LARGEST_COUNT + 1)),
        encoded().replace(b'"d":300', b'"d":%d' % 2**63),
        encoded().replace(b"2026-03-01T12", b"9999-12-31T23"),
        encoded().replace(b"staging", b"\xff\xfe"),
        encoded().replace(b'"d":300', b'"z":"%s","d":300' % (b"z" * 20_000)),
    ],
)
def test_hostile_lines_are_counted_and_left_out(text: bytes) -> None:
    found = reader()
    found.take(NOON, text)
    haul = found.hand_over()
    assert (haul.lines, haul.damaged) == ([], 1)


@pytest.mark.parametrize("text", [b"", b"hello", b'{"msg": "\\"mdw1\\" is our key"}', b"[1]"])
def test_other_lines_are_no_matter(text: bytes) -> None:
    found = reader()
    found.take(NOON, text)
    haul = found.hand_over()
    assert (haul.lines, haul.damaged, haul.foreign) == ([], 0, 0)


def test_believable_looks_at_every_count() -> None:
    much = Histogram(counts=(LARGEST_COUNT, 1))
    assert believable(LINE)
    assert not believable(replace(LINE, features=(FeatureCounts(0, much),)))
    assert not believable(replace(LINE, scores=much))
    assert not believable(replace(LINE, latency=((3, LARGEST_COUNT + 1),)))
    assert not believable(replace(LINE, errors={"5xx": LARGEST_COUNT + 1}))


def test_a_log_is_read_again_when_there_can_be_something_new() -> None:
    found = reader()
    assert found.due(NOON)
    found.take(NOON + timedelta(minutes=5), encoded())
    end = LINE.end
    found.read = end + timedelta(seconds=1)
    # Other workers may not have written yet.
    assert found.due(end + timedelta(seconds=11))
    found.read = end + SETTLE
    assert not found.due(end + timedelta(seconds=11))
    assert not found.due(end + timedelta(seconds=299))
    assert found.due(end + timedelta(seconds=300))
    found.source = replace(RUNNING, deleting=True)
    assert found.due(end + timedelta(seconds=11))
    found.source = replace(RUNNING, instance=1)
    assert found.due(end + timedelta(seconds=11))
    found.source = replace(RUNNING, instance=None)
    assert not found.due(end + timedelta(seconds=300))


async def read(pieces: Sequence[bytes]) -> tuple[list[bytes], bool]:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    lines = _Lines(stream())
    return [line async for line in lines], lines.ended


@patient
@given(st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b" "))), st.data())
def test_lines_are_whole_whatever_the_pieces(lines: list[bytes], data: st.DataObject) -> None:
    text = b"".join(line + b"\n" for line in lines)
    cuts = data.draw(st.lists(st.integers(0, len(text)))) if text else []
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert asyncio.run(read(pieces)) == (lines, True)


def test_an_unfinished_line_waits_for_the_next_read() -> None:
    assert asyncio.run(read([b"one\ntw"])) == ([b"one"], True)


def test_a_monstrous_line_is_left_out() -> None:
    piece = b"x" * (LONGEST_LINE // 2)
    pieces = [b"one\n", *[piece] * 1000, b"\ntwo\n", piece * 3 + b"\nthree\n"]
    assert asyncio.run(read(pieces)) == ([b"one", b"two", b"three"], True)


def test_a_huge_log_is_read_in_parts() -> None:
    piece = b"x" * 1000 + b"\n"
    lines, ended = asyncio.run(read([piece * 1000] * (LARGEST_READ // 10**6 + 5)))
    assert not ended
    assert len(lines) < (LARGEST_READ // 10**6 + 2) * 1000


@pytest.mark.parametrize(
    ("stamp", "moment"),
    [
        (b"2026-03-01T12:00:00.000000000Z", NOON),
        (b"2026-03-01T13:00:00.123456789+01:00", NOON + timedelta(microseconds=123456)),
        (b"unable", None),
        (b"", None),
        (b"2026-03-01T12:00:00", None),
        (b"\xff", None),
    ],
)
def test_the_kubelets_times_are_read(stamp: bytes, moment: datetime | None) -> None:
    assert _moment(stamp) == moment


def test_failures_tell_what_was_tried_and_what_to_do() -> None:
    answer = '{"kind": "Status", "message": "pods is forbidden"}'
    denied = _refused(RUNNING, 403, answer)
    assert (denied.reason, denied.permanent) == (Reason.QUERY_DENIED, True)
    assert denied.message == (
        "the log of pod staging/pod-a cannot be read: the API server answers 403: pods is"
        " forbidden; the operator's role needs `get` on `pods/log` there"
    )
    down = _refused(RUNNING, 502, "<html>\n bad  gateway")
    assert (down.reason, down.permanent) == (Reason.QUERY_FAILED, False)
    assert down.message.endswith("answers 502: <html> bad gateway")


def test_the_worst_failure_is_told() -> None:
    mild = Failure(reason="QueryFailed", message="later", permanent=False)
    bad = Failure(reason="QueryDenied", message="never", permanent=True)
    assert _worst([]) is None
    assert _worst([mild]) == mild
    assert _worst([mild, bad, mild]) == replace(bad, message="never (and 2 more)")
