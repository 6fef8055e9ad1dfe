"""What the builder tells of its builds, in a real API server; the builds do what the test wants."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.kubernetes import MODEL_IMAGES, Cluster
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelImageSpec
from modelops_operator.builder.build import BuiltImage
from modelops_operator.builder.failures import broken, passing
from modelops_operator.shell import builds as module
from modelops_operator.shell.builds import Builds
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.queue import WorkQueue
from modelops_runtime.bento import ServingRuntime

from tests.apiserver import Kubectl

pytestmark = pytest.mark.contract

NAMESPACE = "modelops-system"
DIGEST = "sha256:" + "1" * 64
BUILT = BuiltImage(
    reference=f"registry.test/m@{DIGEST}",
    digest=DIGEST,
    lock=DIGEST,
    form=ServingRuntime.FAST,
    pushed=5,
    reused=7,
)
Build = Callable[[ModelImageSpec, Callable[[str, int], None]], Awaitable[BuiltImage]]
_numbers = itertools.count()


class Scripted:
    """Has the builder's interface, and does what the test wants."""

    def __init__(self, *outcomes: BuiltImage | Exception | Build) -> None:
        self.outcomes = list(outcomes)
        self.builds = 0

    async def build(self, spec: ModelImageSpec, progress: Callable[[str, int], None]) -> BuiltImage:
        self.builds += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BuiltImage):
            return outcome
        if isinstance(outcome, Exception):
            raise outcome
        return await outcome(spec, progress)


class World:
    """One ModelImage, and the builder that is to build it."""

    def __init__(self, cluster: Cluster, builder: Any, kubectl: Kubectl) -> None:
        self.cluster = cluster
        self.builder = builder
        self.kubectl = kubectl
        self.name = f"image-{next(_numbers)}"
        self.key = (NAMESPACE, self.name)
        self.builds = Builds(
            cluster=cluster, cache=Cache(), queue=WorkQueue("test"), builder=builder
        )

    async def hear(self) -> None:
        """Do the watch's part."""
        live = await self.cluster.get(MODEL_IMAGES, *self.key)
        assert live is not None
        self.builds.cache.put(live)
        self.builds.changed(live)

    async def create(self) -> None:
        model = {"role": "predictor", "name": "m", "version": "1", "runId": "r", "source": "s3://m"}
        spec = {
            "models": [model],
            "trackingUri": "http://mlflow.test",
            "repository": "registry.test/m",
            "runtime": {"version": "0.1.0"},
            "python": "3.11",
            "platforms": ["linux/amd64"],
            "base": f"registry.test/base@{DIGEST}",
        }
        manifest = {
            "apiVersion": MODEL_IMAGES.api_version,
            "kind": MODEL_IMAGES.kind,
            "metadata": {"namespace": NAMESPACE, "name": self.name},
            "spec": spec,
        }
        await self.cluster.create(MODEL_IMAGES, NAMESPACE, manifest)
        await self.hear()

    async def status(self) -> dict[str, Any]:
        live = await self.cluster.get(MODEL_IMAGES, *self.key)
        assert live is not None
        status: dict[str, Any] = live["status"]
        return status

    async def told(self) -> dict[str, tuple[str, str]]:
        """Give status and reason by type."""
        conditions = (await self.status()).get("conditions", [])
        return {one["type"]: (one["status"], one["reason"]) for one in conditions}

    async def anything_told(self) -> None:
        """Wait for the first word in the status."""
        while not await self.told():  # noqa: ASYNC110 - it comes through the API server
            await asyncio.sleep(0.01)

    async def settled(self) -> bool:
        """Do one pass."""
        key = await asyncio.wait_for(self.builds.queue.get(), 20)
        settled = await self.builds._pass_over(key)
        if settled:
            self.builds.queue.done(key)
        else:
            self.builds.queue.retry(key)
        return settled


Play = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def play(system: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Play], None]:
    monkeypatch.setenv("KUBECONFIG", str(system))
    kubectl = Kubectl(system)

    async def run(builder: Any, scene: Play) -> None:
        cluster = await Cluster.connect()
        try:
            world = World(cluster, builder, kubectl)
            await world.create()
            await scene(world)
        finally:
            await cluster.close()
        kubectl("-n", NAMESPACE, "delete", "modelimages", "--all")

    return lambda builder, scene: asyncio.run(run(builder, scene))


def test_a_fast_build_is_told_in_one_write(play: Callable[[Any, Play], None]) -> None:
    async def scene(world: World) -> None:
        assert await world.settled()
        status = await world.status()
        assert status["image"] == {
            "reference": BUILT.reference,
            "digest": DIGEST,
            "lock": DIGEST,
            "form": "Fast",
        }
        assert status["bytes"] == {"pushed": 5, "reused": 7}
        assert status["observedGeneration"] == 1
        assert await world.told() == {"Ready": ("True", "Built")}
        written = await world.cluster.get(MODEL_IMAGES, *world.key)
        await world.hear()
        assert await world.settled()
        assert await world.cluster.get(MODEL_IMAGES, *world.key) == written

    builder = Scripted(BUILT)
    play(builder, scene)
    assert builder.builds == 1


def test_a_slow_build_tells_its_steps(
    play: Callable[[Any, Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REPORT", 0.01)
    monkeypatch.setattr(module, "REPORT_INTERVAL", 0.01)
    go_on = asyncio.Event()

    async def slow(_: ModelImageSpec, progress: Callable[[str, int], None]) -> BuiltImage:
        progress("Pushing", 1000)
        await go_on.wait()
        return BUILT

    async def scene(world: World) -> None:
        passing_over = asyncio.create_task(world.settled())
        await world.anything_told()
        assert await world.told() == {
            "Ready": ("Unknown", "Building"),
            "Reconciling": ("True", "Building"),
        }
        status = await world.status()
        assert (status["step"], status["bytes"]["pushed"]) == ("Pushing", 1000)
        # Somebody writes to the object meanwhile: the outcome is told all the same.
        world.kubectl("-n", NAMESPACE, "label", "modelimage", world.name, "team=risk")
        go_on.set()
        assert await passing_over
        assert await world.told() == {"Ready": ("True", "Built")}

    play(Scripted(slow), scene)


def test_what_may_pass_is_tried_again_and_told_once(play: Callable[[Any, Play], None]) -> None:
    failure = passing(Reason.PACKAGE_INDEX_UNREACHABLE, "the index is silent", "its log")

    async def scene(world: World) -> None:
        assert not await world.settled()
        assert await world.told() == {
            "Ready": ("False", "PackageIndexUnreachable"),
            "Reconciling": ("True", "PackageIndexUnreachable"),
        }
        told = await world.status()
        assert told["log"] == "its log"
        assert not await world.settled()
        assert await world.status() == told
        assert await world.settled()
        assert await world.told() == {"Ready": ("True", "Built")}
        assert "log" not in await world.status()

    play(Scripted(failure, failure, BUILT), scene)


def test_what_a_person_must_mend_stalls_until_then(
    play: Callable[[Any, Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = broken(Reason.MODEL_INVALID, "it holds a pickle")
    builder = Scripted(failure, failure, BUILT)

    async def scene(world: World) -> None:
        assert await world.settled()
        assert await world.told() == {
            "Ready": ("False", "ModelInvalid"),
            "Stalled": ("True", "ModelInvalid"),
        }
        told = await world.status()
        await world.hear()
        assert await world.settled()  # the echo of our own write
        assert builder.builds == 1
        annotation = "modelops.dev/reconcile=now"
        world.kubectl("-n", NAMESPACE, "annotate", "modelimage", world.name, annotation)
        await world.hear()
        assert await world.settled()
        assert builder.builds == 2
        assert await world.status() == told
        # And after a while without being told.
        world.builds.stalls[world.key].due = 0
        world.builds.queue.add(world.key)
        assert await world.settled()
        assert await world.told() == {"Ready": ("True", "Built")}

    monkeypatch.setattr(module, "RECOVERY", 60.0)
    play(builder, scene)


def test_a_fault_of_our_own_is_told(play: Callable[[Any, Play], None]) -> None:
    async def scene(world: World) -> None:
        assert not await world.settled()
        assert (await world.told())["Ready"] == ("False", "InternalError")

    play(Scripted(ZeroDivisionError("oh")), scene)


def test_a_build_that_takes_too_long_is_ended(
    play: Callable[[Any, Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_BUILD", 0.05)

    async def endless(*_: Any) -> BuiltImage:
        await asyncio.Event().wait()
        raise AssertionError

    async def scene(world: World) -> None:
        assert not await world.settled()
        assert (await world.told())["Ready"] == ("False", "BuildFailed")
        assert world.builds.active == {}

    play(Scripted(endless), scene)


def test_a_build_that_nobody_wants_any_more_is_ended(play: Callable[[Any, Play], None]) -> None:
    started = asyncio.Event()

    async def endless(*_: Any) -> BuiltImage:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def scene(world: World) -> None:
        passing_over = asyncio.create_task(world.settled())
        await started.wait()
        live = world.builds.cache.get(MODEL_IMAGES.kind, world.key)
        assert live is not None
        world.builds.cache.drop(live)
        world.builds.changed(live)
        assert await asyncio.wait_for(passing_over, 5)
        assert await world.told() == {}

    play(Scripted(endless), scene)


class Switch:
    """Leads as long as the test wants."""

    remaining = float("inf")

    def __init__(self) -> None:
        self.gained = asyncio.Event()

    @property
    def leading(self) -> bool:
        return self.gained.is_set()

    async def wait(self) -> None:
        await self.gained.wait()

    async def run(self) -> None:
        raise AssertionError


def test_of_several_builders_the_one_that_leads_builds(
    play: Callable[[Any, Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REPORT", 0.01)
    monkeypatch.setattr(module, "REPORT_INTERVAL", 0.01)
    ended = asyncio.Event()

    async def endless(_: ModelImageSpec, __: Callable[[str, int], None]) -> BuiltImage:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def scene(world: World) -> None:
        world.builds.leadership = switch = Switch()
        working = asyncio.create_task(world.builds.work())
        await asyncio.sleep(0.2)
        assert world.builder.builds == 0
        switch.gained.set()
        await world.anything_told()
        # Another one takes over in the middle, and this one comes back.
        switch.gained.clear()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.sleep(0.2)
        assert world.builder.builds == 1
        switch.gained.set()
        while (await world.told()).get("Ready") != ("True", "Built"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        assert world.builder.builds == 2
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    play(Scripted(endless, BUILT), scene)


def test_killed_in_the_middle_the_next_one_begins_anew(
    play: Callable[[Any, Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REPORT", 0.01)

    async def endless(_: ModelImageSpec, progress: Callable[[str, int], None]) -> BuiltImage:
        progress("Pushing", 1)
        await asyncio.Event().wait()
        raise AssertionError

    async def scene(world: World) -> None:
        killed = asyncio.create_task(world.settled())
        await world.anything_told()
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        successor = World(world.cluster, Scripted(BUILT), world.kubectl)
        successor.name, successor.key = world.name, world.key
        await successor.hear()
        assert await successor.settled()
        assert await successor.told() == {"Ready": ("True", "Built")}
        assert json.dumps(await successor.status()).count("Pushing") == 0

    play(Scripted(endless), scene)
