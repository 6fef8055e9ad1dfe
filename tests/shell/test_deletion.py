"""Deletion in every phase, whatever is down: nothing hangs, and nothing comes after it.

There is no garbage collector here: the tests play it, which shows what the operator does itself.
"""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mlflow_server import free_port
from tests.nursery import Nursery
from tests.shell.operating import (
    CHILDREN,
    Process,
    World,
    configuration,
    eventually,
    running,
)

pytestmark = pytest.mark.contract

QUIET = 2.0
"""Seconds in which nothing is to be written: longer than the second look after a write."""
NAME = "employment"
Phase = Callable[[World], object]


def before_anything_is_known(world: World) -> None:
    world.deployment(NAME)


def while_the_model_is_missing(world: World) -> None:
    world.deployment(NAME)
    eventually(lambda: world.reason(NAME, "Stalled") == "ModelNotFound")


def while_the_image_is_built(world: World) -> None:
    world.register(NAME)
    world.deployment(NAME)
    eventually(lambda: world.image(NAME))


def while_it_is_rolled_out(world: World) -> None:
    world.register(NAME)
    world.deployment(NAME)
    world.build(NAME)
    eventually(lambda: world.get("deployment", NAME))


def while_it_serves(world: World) -> None:
    world.serve(NAME)


def while_it_is_autoscaled(world: World) -> None:
    world.register(NAME)
    resources = {"requests": {"cpu": "1"}}
    world.deployment(NAME, serving={"autoscaling": {"maxReplicas": 3}, "resources": resources})
    world.build(NAME)
    eventually(lambda: world.get("hpa", NAME))


def while_it_is_suspended(world: World) -> None:
    world.serve(NAME)
    world.deployment(NAME, suspend=True)
    eventually(lambda: world.reason(NAME, "Ready") == "Suspended")


PHASES: tuple[Phase, ...] = (
    before_anything_is_known,
    while_the_model_is_missing,
    while_the_image_is_built,
    while_it_is_rolled_out,
    while_it_serves,
    while_it_is_autoscaled,
    while_it_is_suspended,
)


def delete(world: World) -> None:
    """Delete the object, and do the garbage collector's part."""
    place = ("-n", world.namespace)
    world.kubectl(*place, "delete", "modeldeployment", NAME, "--timeout=20s")
    time.sleep(QUIET)  # what was under way may have written its children meanwhile
    world.kubectl(*place, "delete", f"{CHILDREN},hpa", "--all")


def is_forgotten(world: World, operator: Process) -> bool:
    """Tell whether nothing is written, and nothing there, for a while."""
    writes = operator.writes()
    time.sleep(QUIET)
    return operator.writes() == writes and world.list(f"{CHILDREN},hpa") == []


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_an_object_can_be_deleted(world: World, operator: Process, phase: Phase) -> None:
    phase(world)
    delete(world)
    assert is_forgotten(world, operator)


def test_one_that_is_deleted_while_the_operator_is_down_is_gone(
    world: World, operator: Process
) -> None:
    while_it_serves(world)
    operator.end(signal.SIGKILL)
    delete(world)
    operator.start()
    assert is_forgotten(world, operator)


def test_one_that_waits_for_its_children_to_go_is_left_alone(
    world: World, operator: Process
) -> None:
    """As `kubectl delete --cascade=foreground` has it."""
    while_it_serves(world)
    place = ("-n", world.namespace)
    flags = ("--cascade=foreground", "--wait=false")
    world.kubectl(*place, "delete", "modeldeployment", NAME, *flags)
    world.kubectl(*place, "delete", f"{CHILDREN},hpa", "--all")
    assert is_forgotten(world, operator)
    patch = '{"metadata": {"finalizers": null}}'
    world.kubectl(*place, "patch", "modeldeployment", NAME, "--type=merge", "-p", patch)
    assert world.get("modeldeployment", NAME) is None


def test_one_in_a_namespace_that_is_deleted_does_not_hold_it_up(
    world: World, operator: Process
) -> None:
    while_the_image_is_built(world)
    world.kubectl("delete", "namespace", world.namespace, "--wait=false")
    world.build(NAME)
    eventually(lambda: "being terminated" in world.condition(NAME, "Available").get("message", ""))
    delete(world)
    assert is_forgotten(world, operator)


@pytest.fixture
def lonely(nursery: Nursery, system: Path, operator: Process, tmp_path: Path) -> Iterator[Process]:
    """An operator whose MLflow and registry do not answer, instead of the other one."""
    operator.end()
    nowhere = f"http://127.0.0.1:{free_port()}"
    config = configuration(nowhere, leaderElection={"leaseName": "lonely"})
    with running(Process(nursery, system, config, tmp_path / "lonely")) as process:
        yield process
    operator.start()


def test_one_can_be_deleted_while_mlflow_is_down(world: World, lonely: Process) -> None:
    world.deployment(NAME)
    eventually(lambda: world.reason(NAME, "ModelsResolved") == "ModelRegistryUnreachable")
    delete(world)
    assert is_forgotten(world, lonely)
