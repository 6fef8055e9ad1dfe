"""Two builders' processes: one builds, the other one stands by."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.api.objects import IMAGE_SPEC
from tests.nursery import Nursery
from tests.shell.operating import Process, World, configuration, eventually, running

pytestmark = pytest.mark.contract

NAMESPACE = "modelops-system"


def leads(process: Process) -> bool:
    return 'modelops_leads{lease="pair-builder"} 1.0' in process.get(process.metrics, "metrics")


def is_told(world: World, name: str) -> bool:
    """Create a ModelImage, and tell whether a builder has taken it up. It can build nothing."""
    if world.get("modelimage", name, NAMESPACE) is None:
        manifest: Mapping[str, Any] = {
            "apiVersion": "modelops.dev/v1alpha1",
            "kind": "ModelImage",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": IMAGE_SPEC | {"trackingUri": "http://127.0.0.1:1"},
        }
        world.apply(manifest)
    live = world.get("modelimage", name, NAMESPACE) or {}
    conditions = {one["type"]: one for one in live["status"].get("conditions", ())}
    return bool(conditions.get("Ready", {}).get("reason"))


def test_a_builder_that_ends_is_succeeded(
    world: World, nursery: Nursery, system: Path, tracking_uri: str, tmp_path: Path
) -> None:
    config = configuration(tracking_uri, leaderElection={"leaseName": "pair"})
    pair = [
        Process(nursery, system, config, tmp_path / name, "modelops_operator.shell.builder_main")
        for name in ("first", "second")
    ]
    with running(pair[0]), running(pair[1]):
        first, second = sorted(eventually_led(pair), key=leads, reverse=True)
        assert not leads(second)
        eventually(lambda: is_told(world, "one"))
        eventually(lambda: '"build failed"' in first.log())
        assert '"build failed"' not in second.log()
        first.end(signal.SIGKILL)
        eventually(lambda: is_told(world, "two"))
        assert leads(second)
        first.start()
        assert not leads(first)
        assert second.end() == 0
        eventually(lambda: is_told(world, "three"))
        assert leads(first)
        assert first.end() == 0


def eventually_led(pair: list[Process]) -> list[Process]:
    """Wait until one of them leads."""
    eventually(lambda: any(leads(process) for process in pair))
    return pair
