"""Log Analytics and the pods' own logs: the same lines, the same histograms, the same verdict."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from modelops_operator.adapters.log_analytics import LogAnalytics
from modelops_operator.adapters.pod_logs import _Reader, _Source
from modelops_operator.adapters.telemetry import Reading, Target
from modelops_operator.api.conditions import ConditionType
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.api.facts import Role
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.watch import OfOthers, Reporter
from modelops_operator.core.health.windows import History, Window
from modelops_operator.core.verdicts import verdicts
from modelops_runtime.telemetry import Verdict

from tests.health.builders import (
    REFERENCE,
    REVISION,
    START,
    WINDOW,
    counted,
    line,
    normal_profile,
    watch,
)
from tests.log_analytics import WORKSPACE, Row, Workspace, error

pytestmark = pytest.mark.contract

PODS, WORKERS, WINDOWS, FEATURES = ("pod-a", "pod-b"), ("w1", "w2"), 4, 30
NOW = START + WINDOWS * WINDOW + timedelta(minutes=6)
PROFILE = normal_profile(FEATURES)
Text = tuple[str, int, bytes]
"""Pod, window and what it wrote."""


def written(*, shift: float) -> list[Text]:
    """Give what the pods write: chunks, repetitions, noise and lies among it."""
    random = np.random.default_rng(7)
    texts: list[Text] = []
    for window in range(WINDOWS):
        for pod in PODS:
            for worker in WORKERS:
                matrix = random.standard_normal((400, FEATURES))
                matrix[:, 0] += shift
                whole = line(
                    window=window,
                    pod=pod,
                    worker=worker,
                    features=counted(PROFILE, matrix),
                    edges=PROFILE.edges_hash,
                    rows=400,
                    outliers=int(random.integers(0, 12)),
                    requests=40,
                    errors={"5xx": 1},
                    latency=((20, 30), (21, 10)),
                    form="treelite",
                )
                chunks = [chunk.rstrip(b"\n") for chunk in whole.encode()]
                liar = replace(whole, model="staging/other").encode()[0].rstrip(b"\n")
                lies = [liar, chunks[0].replace(b'"n":400', b'"n":-400'), chunks[0][:-9], b"hello"]
                texts += [(pod, window, text) for text in (*chunks, chunks[0], *lies)]
    return texts


def manifest(name: str) -> Mapping[str, Any]:
    running = {"name": "server", "state": {"running": {"startedAt": "2026-03-01T11:00:00Z"}}}
    return {
        "metadata": {"name": name, "uid": name, "labels": {"modelops.dev/revision": REVISION}},
        "status": {"containerStatuses": [running]},
    }


TARGET = Target(namespace="staging", name="employment", pods=tuple(map(manifest, PODS)))


def from_pod_logs(texts: Sequence[Text]) -> Reading:
    """Read as `PodLogs` does once it has the bytes."""
    hauls = []
    for pod in TARGET.pods:
        reader = _Reader(_Source.of(TARGET, pod), cursor=START, former=START)
        for name, window, text in texts:
            if name == reader.source.origin.pod:
                reader.take(START + (window + 1) * WINDOW, text)
        hauls.append(reader.hand_over())
    return Reading(
        lines=tuple(each for haul in hauls for each in haul.lines),
        damaged=sum(haul.damaged for haul in hauls),
        foreign=sum(haul.foreign for haul in hauls),
    )


def from_log_analytics(texts: Sequence[Text], workspace: Workspace) -> Reading:
    """Read by the real client, what came last having arrived first."""
    workspace.ingest(
        Row(
            message=text.decode(),
            pod=pod,
            written=START + (window + 1) * WINDOW,
            ingested=NOW - timedelta(milliseconds=number + 1),
        )
        for number, (pod, window, text) in enumerate(texts)
    )

    async def read() -> Reading:
        async with workspace.serving() as client:
            source = LogAnalytics(client, LogAnalyticsConfig(workspace_id=WORKSPACE))
            return (await source.collect([TARGET], NOW))[TARGET.key]

    return asyncio.run(read())


def history(reading: Reading) -> History:
    history = History(REVISION, settle=timedelta(minutes=5))
    history.add(reading.lines, NOW)
    return history


def plain(window: Window) -> tuple[Any, ...]:
    histograms = {
        key: (counts.dtype, counts.tobytes()) for key, counts in window.histograms.items()
    }
    figures = (window.rows, window.outliers, window.requests, window.server_errors)
    return window.start, window.end, *figures, dict(window.latency), histograms, window.forms


@pytest.mark.parametrize(("shift", "drifts"), [(0.0, "False"), (1.0, "True")])
def test_both_backends_give_the_same_windows_and_the_same_verdict(
    shift: float, drifts: str
) -> None:
    texts = written(shift=shift)
    assert any(b'"cc":1,' not in text for *_, text in texts)
    readings = from_pod_logs(texts), from_log_analytics(texts, Workspace())
    assert [(each.damaged, each.foreign) for each in readings] == [(32, 16)] * 2
    one, other = map(history, readings)

    groups = [one.groups(NOW).closed, other.groups(NOW).closed]
    assert sum(window.rows for window in groups[0]) >= 3000
    assert [plain(window) for window in groups[0]] == [plain(window) for window in groups[1]]
    watched = watch(
        drift=PROFILE,
        outliers=REFERENCE,
        reporters=tuple(Reporter(pod=pod, since=START) for pod in PODS),
    )
    verdict = evaluate(one, watched, NOW)
    assert verdict == evaluate(other, watched, NOW)
    assert verdict.conditions[0].status == drifts


@pytest.mark.parametrize(("drifted", "said"), [(0, "False"), (1, "True")])
def test_what_a_detector_of_others_says_reaches_the_status(drifted: int, said: str) -> None:
    found = {"drift": Verdict(1, drifted), "outlier": Verdict(1000, 10)}
    texts = [
        (pod, window, line(window=window, pod=pod, rows=400, verdicts=found).encode()[0].rstrip())
        for window in range(WINDOWS)
        for pod in PODS
    ]
    watched = watch(
        drift=OfOthers(),
        outliers=OfOthers(),
        reporters=tuple(Reporter(pod=pod, since=START) for pod in PODS),
    )
    one, other = from_pod_logs(texts), from_log_analytics(texts, Workspace())
    health = evaluate(history(one), watched, NOW)
    assert health == evaluate(history(other), watched, NOW)
    status = verdicts(health, {Role.DRIFT, Role.OUTLIER}, {}, NOW)
    told = {condition.type: condition.status for condition in status.conditions}
    assert told[ConditionType.DRIFT_DETECTED] == said
    assert told[ConditionType.OUTLIERS_DETECTED] == "False"
    assert told[ConditionType.MONITORING_HEALTHY] == "True"
    assert status.evidence["drift"]["severity"] == ("Alert" if drifted else "None")


def test_what_stands_in_the_way_is_the_reason_of_the_condition() -> None:
    workspace = Workspace()
    workspace.answers.append(error(403, "InsufficientAccessError", "No access"))
    failure = from_log_analytics([], workspace).failure
    assert failure is not None
    health = evaluate(History(REVISION, settle=WINDOW), watch(failure=failure), NOW)
    (monitoring,) = (each for each in health.conditions if each.type == "MonitoringHealthy")
    assert (monitoring.status, monitoring.reason) == ("False", "QueryDenied")
    assert "give the operator's identity the role Log Analytics Reader" in monitoring.message
