"""What pods are said to tell of themselves."""

import asyncio
from typing import Any

import pytest
from modelops_operator.adapters.kubernetes import ApiError
from modelops_operator.api.facts import Pod
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.gather import Gatherer, Memory

pytestmark = pytest.mark.unit

KEY = ("ns", "employment")
CRASHED = {"terminated": {"exitCode": 3, "reason": "Error", "message": "oh"}}


class Logs:
    """An API server with logs and nothing else."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.refuses = False

    async def get(self, *_: Any) -> None:
        return None

    async def log_tail(self, _: str, pod: str, __: str, *, lines: int, previous: bool) -> str:
        assert lines
        self.asked.append((pod, previous))
        if self.refuses:
            raise ApiError(403, "forbidden")
        return f"words {len(self.asked)}"


def pod(state: dict[str, Any], *, ready: bool = False, **container: Any) -> dict[str, Any]:
    status = {"name": "server", "restartCount": 0, "state": state, **container}
    return {
        "kind": "Pod",
        "metadata": {
            "namespace": "ns",
            "name": "pod-a",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "labels": {"modelops.dev/deployment": "employment", "modelops.dev/revision": "r1"},
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "sidecar", "state": {}}, status],
        },
    }


class World:
    def __init__(self) -> None:
        self.cache, self.logs, self.version = Cache(), Logs(), 1
        self.gatherer = Gatherer(self.cache, self.logs, images="modelops-system")  # type: ignore[arg-type]

    def gather(self, live: dict[str, Any]) -> Pod:
        self.version += 1
        live["metadata"]["resourceVersion"] = str(self.version)
        self.cache.put(live)
        observed = asyncio.run(self.gatherer.observe(KEY, {}, Memory(refused={})))
        (found,) = observed.pods
        return found


def test_a_pod_that_is_well() -> None:
    world = World()
    found = world.gather(pod({"running": {}}, ready=True))
    assert (found.name, found.revision, found.ready) == ("pod-a", "r1", True)
    assert (found.phase, found.restarts, found.exit_code) == ("Running", 0, None)
    assert found.created.isoformat() == "2026-03-01T12:00:00+00:00"
    assert world.logs.asked == []


def test_an_image_that_cannot_be_pulled() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    found = World().gather(pod(waiting))
    assert (found.waiting, found.message, found.exit_code) == (
        "ImagePullBackOff",
        "not found",
        None,
    )


def test_a_pod_that_no_node_takes() -> None:
    live = pod({})
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    live["status"] = {"phase": "Pending", "conditions": [{**unscheduled, "message": "0/1 nodes"}]}
    found = World().gather(live)
    assert (found.waiting, found.message, found.phase) == ("Unschedulable", "0/1 nodes", "Pending")


def test_a_crash_is_told_with_its_last_words_which_are_read_once_a_restart() -> None:
    world = World()
    found = world.gather(pod(CRASHED))
    assert (found.exit_code, found.terminated, found.message) == (3, "Error", "oh")
    assert found.log_tail == "words 1"
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    for _ in range(3):
        found = world.gather(pod(waiting, lastState=CRASHED, restartCount=1))
    assert (found.waiting, found.restarts, found.log_tail) == ("CrashLoopBackOff", 1, "words 2")
    assert world.logs.asked == [("pod-a", False), ("pod-a", True)]


def test_a_pod_that_came_back_needs_no_words() -> None:
    world = World()
    live = pod({"running": {}}, ready=True, lastState=CRASHED, restartCount=1)
    assert world.gather(live).log_tail == ""
    assert world.logs.asked == []


def test_a_log_that_cannot_be_read_is_no_reason_to_fail() -> None:
    world = World()
    world.logs.refuses = True
    assert "forbidden" in world.gather(pod(CRASHED)).log_tail
