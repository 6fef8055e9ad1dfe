from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from modelops_operator.api.facts import Pod
from modelops_operator.core.pods import pod_trouble, worst_trouble

from tests.core.simulation import START, pod

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("facts", "reason", "stuck"),
    [
        ({}, None, None),
        ({"waiting": "ContainerCreating"}, None, None),
        ({"waiting": "PodInitializing"}, None, None),
        ({"waiting": "ImagePullBackOff", "message": "not found"}, "ImagePullFailed", False),
        ({"waiting": "InvalidImageName"}, "ImagePullFailed", True),
        ({"waiting": "Unschedulable", "message": "0/1 nodes"}, "Unschedulable", False),
        ({"waiting": "CreateContainerConfigError"}, "PodsNotReady", False),
        ({"terminated": "OOMKilled", "exit_code": 137, "restarts": 1}, "OutOfMemory", False),
        ({"terminated": "OOMKilled", "exit_code": 137, "restarts": 3}, "OutOfMemory", True),
        ({"terminated": "Error", "exit_code": 1, "restarts": 1}, "PodsCrashing", False),
        ({"terminated": "Error", "exit_code": 1, "restarts": 3}, "PodsCrashing", True),
        ({"exit_code": 0, "restarts": 5, "waiting": "CrashLoopBackOff"}, "PodsCrashing", True),
        ({"exit_code": 1, "phase": "Failed"}, "PodsCrashing", True),
    ],
)
def test_what_keeps_a_pod_from_serving(
    facts: dict[str, Any],
    reason: str | None,
    stuck: bool | None,  # noqa: FBT001 - a table
) -> None:
    phase = facts.pop("phase", "Running")
    trouble = pod_trouble(replace(pod("a", "r", **facts), phase=phase))
    assert (trouble and trouble.reason, trouble and trouble.stuck) == (reason, stuck)


def test_a_crash_is_told_with_exit_code_and_the_end_of_the_log() -> None:
    log = "\n".join(f"line {number}" for number in range(1000)) + "\nKeyError: 'AGEP'\n"
    crashed = pod("a", "r", exit_code=3, terminated="Error", restarts=1, log_tail=log)
    trouble = pod_trouble(crashed)
    assert trouble is not None
    assert trouble.message.startswith("pod a exited with code 3 (Error), 1 restart;")
    assert trouble.message.endswith("line 999\nKeyError: 'AGEP'")
    assert len(trouble.message.encode()) <= 1024


@pytest.mark.parametrize("log", ["é" * 5000, "\n\n", "", "x" * 1024])
def test_a_log_of_any_kind_fits(log: str) -> None:
    trouble = pod_trouble(pod("a", "r", exit_code=3, restarts=1, log_tail=log))
    assert trouble is not None
    assert len(trouble.message.encode()) <= 1024
    assert "\ufffd" not in trouble.message


def test_a_long_message_of_the_kubelet_fits() -> None:
    trouble = pod_trouble(pod("a", "r", waiting="ErrImagePull", message="x" * 9999))
    assert trouble is not None
    assert len(trouble.message.encode()) <= 1024


CRASHING: dict[str, Any] = {"exit_code": 1, "restarts": 1}
STUCK: dict[str, Any] = {"exit_code": 1, "restarts": 9}
LATE = START + timedelta(hours=1)


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ([], None),
        ([pod("a", "r", ready=True, **CRASHING)], None),
        ([pod("a", "old", **CRASHING)], None),
        ([pod("a", "r", deleting=True, **CRASHING)], None),
        ([pod("b", "r", **CRASHING), pod("a", "r", **CRASHING)], "pod a "),
        ([pod("a", "r", **CRASHING), pod("b", "r", **STUCK)], "pod b "),
        ([replace(pod("a", "r", **STUCK), created=LATE), pod("b", "r", **STUCK)], "pod b "),
    ],
)
def test_one_pod_is_told_of_always_the_same(pods: list[Pod], told: str | None) -> None:
    for order in (pods, pods[::-1]):
        trouble = worst_trouble(order, revision="r")
        assert (trouble is None) == (told is None)
        assert trouble is None or trouble.message.startswith(told or "")
