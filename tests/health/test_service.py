"""How well requests are answered, and what counts as badly."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelops_operator.api.conditions import Condition, ConditionType
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import DeploymentHealth, Monitoring, Objectives
from modelops_operator.core.health.evaluate import evaluate
from modelops_operator.core.health.service import (
    Restart,
    least_share,
    pending,
    restarts,
    slower,
)
from modelops_operator.core.health.windows import History, Window
from modelops_operator.core.state import Health
from modelops_runtime.telemetry import latency_bin
from scipy.stats import binomtest

from tests.health.builders import REVISION, START, WINDOW, line, watch

pytestmark = pytest.mark.unit
SERVICE = ConditionType.SERVICE_HEALTHY
P99 = Objectives(p99=timedelta(milliseconds=50))


def told(
    *windows: Mapping[str, Any], objectives: Objectives | None = None, **watched: Any
) -> Health:
    """Judge windows that follow each other, right after the last."""
    history = History(REVISION, settle=timedelta(0))
    now = START + len(windows) * WINDOW
    history.add([line(window=number, **each) for number, each in enumerate(windows)], now)
    monitoring = Monitoring(window=WINDOW, objectives=objectives or Objectives())
    return evaluate(history, watch(monitoring=monitoring, **watched), now)


def condition(health: Health) -> Condition:
    return next(found for found in health.conditions if found.type == SERVICE)


def asked(requests: int = 1000, failed: int = 0, seconds: float = 0.002) -> dict[str, Any]:
    return {
        "rows": requests - failed,
        "requests": requests,
        "errors": {"5xx": failed} if failed else {},
        "latency": ((latency_bin(seconds), requests),),
    }


BAD, GOOD = asked(failed=200), asked()
SLOW = asked(seconds=0.2)


@pytest.mark.parametrize(
    ("windows", "status", "reason"),
    [
        ((GOOD,), "True", Reason.WITHIN_OBJECTIVES),
        ((GOOD, GOOD, GOOD), "True", Reason.WITHIN_OBJECTIVES),
        ((GOOD, GOOD, BAD), "True", Reason.WITHIN_OBJECTIVES),
        ((GOOD, BAD, BAD), "False", Reason.ERROR_RATE_HIGH),
        ((BAD, BAD, GOOD), "False", Reason.ERROR_RATE_HIGH),
        ((BAD, BAD, GOOD, GOOD), "True", Reason.WITHIN_OBJECTIVES),
        ((BAD,), "Unknown", Reason.AWAITING_CONFIRMATION),
        ((SLOW, SLOW), "False", Reason.LATENCY_HIGH),
        ((SLOW, GOOD), "True", Reason.WITHIN_OBJECTIVES),
        ((asked(40, 2), asked(40, 2)), "True", Reason.WITHIN_OBJECTIVES),
        ((asked(10, 10), asked(10, 10)), "False", Reason.ERROR_RATE_HIGH),
        (({}, {}, {}), "Unknown", Reason.NO_TRAFFIC),
        ((GOOD, {}, {}, {}), "Unknown", Reason.NO_TRAFFIC),
        ((GOOD, {}, {}), "True", Reason.WITHIN_OBJECTIVES),
        ((), "Unknown", Reason.AWAITING_TELEMETRY),
    ],
)
def test_two_of_the_last_three_windows_decide(
    windows: tuple[dict[str, Any], ...], status: str, reason: Reason
) -> None:
    found = condition(told(*windows, objectives=P99))
    assert (found.status, found.reason) == (status, reason)


def test_without_an_objective_latency_is_shown_and_not_judged() -> None:
    health = told(SLOW, SLOW)
    assert condition(health).status == "True"
    assert health.evidence["service"]["objectives"] == {"errorRate": "0.05"}
    assert "p99 " in condition(health).message


def test_a_service_that_only_fails_is_seen_although_it_predicts_nothing() -> None:
    nothing = asked(500, 500)
    assert nothing["rows"] == 0
    found = condition(told(*[GOOD] * 5, nothing, nothing))
    assert found.reason == Reason.ERROR_RATE_HIGH
    assert "more than 5.00% of the requests fail: 2000 requests, 50.00% failed" in found.message


def test_clients_that_send_nonsense_are_no_fault_of_the_service() -> None:
    refused = {**GOOD, "errors": {"4xx": 900}}
    assert condition(told(refused, refused)).status == "True"


def test_the_evidence_is_of_the_last_windows_and_the_status_takes_it() -> None:
    health = told(*[GOOD] * 6, objectives=P99)
    service = health.evidence["service"]
    assert service["requests"] == 3000
    assert service["window"]["start"] == "2026-03-01T12:15:00Z"
    assert service["objectives"] == {"errorRate": "0.05", "p99": "50ms"}
    read = DeploymentHealth.model_validate(health.evidence).service
    assert read is not None
    assert (read.requests, read.error_rate, read.restarts) == (3000, "0", 0)


# --- restarts ------------------------------------------------------------------------------


def pod(name: str = "pod-a", ended: datetime | None = None, **state: Any) -> dict[str, Any]:
    """A pod as the API server tells it, whose container has ended once."""
    terminated = {"reason": "Error", "exitCode": 1, **state}
    if ended:
        terminated["finishedAt"] = ended.isoformat().replace("+00:00", "Z")
    status = {"restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": terminated}}
    return {
        "metadata": {"name": name, "labels": {"modelops.dev/revision": REVISION}},
        "status": {"containerStatuses": [status if ended else {"restartCount": 0}]},
    }


def test_a_restart_is_told_for_a_quarter_of_an_hour() -> None:
    ended = START + timedelta(minutes=9)
    found = restarts([pod(ended=ended), pod("pod-b")], REVISION)
    assert found == (Restart(pod="pod-a", reason="Error", exit_code=1, at=ended, count=2),)
    said = condition(told(GOOD, GOOD, restarts=found))
    assert (said.status, said.reason) == ("False", Reason.PODS_RESTARTING)
    for words in ("pod-a", "exit code 1", "2 restarts", "kubectl logs pod-a --previous"):
        assert words in said.message
    assert condition(told(*[GOOD] * 5, restarts=found)).status == "True"


def test_a_pod_killed_for_its_memory_says_what_to_raise() -> None:
    ended = START + timedelta(minutes=9)
    killed = pod(ended=ended, reason="OOMKilled", exitCode=137)
    other = pod("pod-b", ended=ended - timedelta(minutes=1))
    said = condition(told(GOOD, GOOD, restarts=restarts([other, killed], REVISION)))
    assert said.reason == Reason.OUT_OF_MEMORY
    assert "pod pod-a and 1 other pod restarted" in said.message
    assert "spec.serving.resources.limits.memory" in said.message


def test_a_pod_that_waits_for_its_next_start_has_restarted_too() -> None:
    waiting = pod(ended=START)
    (status,) = waiting["status"]["containerStatuses"]
    status["state"] = {"terminated": {"exitCode": 3, "finishedAt": "2026-03-01T12:04:00Z"}}
    (found,) = restarts([waiting], REVISION)
    assert (found.exit_code, found.reason) == (3, "Error")


def test_other_revisions_and_pods_that_go_do_not_count() -> None:
    old, going = pod(ended=START), pod(ended=START)
    old["metadata"]["labels"]["modelops.dev/revision"] = "another"
    going["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert restarts([old, going, {"metadata": {"name": "new"}}], REVISION) == ()


# --- statistics ----------------------------------------------------------------------------


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_the_least_share_is_wilson_s(hits: int, missed: int) -> None:
    total = hits + missed
    found = least_share(hits, total)
    if not total:
        assert found == 0
        return
    expected = binomtest(hits, total).proportion_ci(0.98, method="wilson").low
    assert found == pytest.approx(expected, abs=1e-4)


def test_chance_alone_hardly_ever_alarms() -> None:
    random = np.random.default_rng(5)
    failed = random.binomial(1000, 0.05, size=100_000)
    alarms = np.mean([least_share(int(hits), 1000) > 0.05 for hits in failed])
    assert alarms < 0.02  # in one window; two of three have to agree


@given(st.floats(1e-5, 90), st.lists(st.floats(1e-6, 200), min_size=1, max_size=30))
def test_only_answers_that_certainly_were_slower_count(bound: float, times: list[float]) -> None:
    latency: dict[int, int] = {}
    for seconds in times:
        latency[latency_bin(seconds)] = latency.get(latency_bin(seconds), 0) + 1
    found = slower(Window(start=START, end=START, latency=latency), bound)
    assert found <= sum(seconds >= bound for seconds in times)
    assert found >= sum(seconds > bound * 10**0.11 for seconds in times if seconds < 100)


def test_objectives_are_read_as_people_write_them() -> None:
    read = Monitoring.model_validate({"objectives": {"errorRate": "0.001", "p99": "50ms"}})
    assert read.objectives == Objectives(
        error_rate=Decimal("0.001"), p99=timedelta(milliseconds=50)
    )
    assert math.isclose(float(Monitoring().objectives.error_rate), 0.05)


def waiting(minutes: int, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"pod-{minutes}",
            "labels": {"modelops.dev/revision": REVISION},
            "creationTimestamp": (START - timedelta(minutes=minutes)).isoformat(),
        },
        "status": {"phase": "Pending", **status},
    }


def test_pods_that_wait_long_are_told_with_the_cause() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    pulling = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    running = waiting(9) | {"status": {"phase": "Running"}}
    found = pending(
        [waiting(0), waiting(4, containerStatuses=[pulling]), running,
         waiting(7, conditions=[scheduled])],
        REVISION,
    )  # fmt: skip
    assert [(each.pod, each.cause) for each in found] == [
        ("pod-7", "0/3 nodes are available"),
        ("pod-4", "no such image"),
        ("pod-0", ""),
    ]
    assert pending([waiting(7)], "another") == ()
    health = told(GOOD, pending=tuple(replace(each, since=each.since + WINDOW) for each in found))
    said = condition(health)
    assert (said.status, said.reason) == ("False", Reason.PODS_PENDING)
    assert said.message == (
        "pod pod-7 and 1 other pod waits since 2026-03-01T11:58:00Z: 0/3 nodes are available"
    )
    assert health.evidence["service"]["pending"] == 2
    assert condition(told(GOOD, pending=found[2:])).status == "False"
    fresh = replace(found[2], since=START + WINDOW - timedelta(minutes=2))
    assert condition(told(GOOD, pending=(fresh,))).status == "True"
