"""Watches between a list and the next one, past what an API server and a network do to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from modelops_operator.adapters.kubernetes import Cluster, Resource
from modelops_operator.shell import main, sweep, watch
from modelops_operator.shell.cache import Cache, Manifest, key_of
from modelops_operator.shell.sweep import Kind, Sweeper
from modelops_operator.shell.watch import Watcher

from tests.core.simulation import configuration
from tests.faults.proxy import Call, Fault, Proxy, Rule
from tests.faults.world import KINDS, World, kubeconfig, proxied

pytestmark = pytest.mark.contract

CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
ACCOUNT = {
    "metadata": {
        "name": "goes",
        "labels": {
            "app.kubernetes.io/managed-by": "modelops-operator",
            "modelops.dev/deployment": "goes",
        },
    }
}
REFUSED = Fault(status=401, body=b'{"kind": "Status", "code": 401, "message": "who is it?"}')


@pytest.fixture(scope="module")
def front(apiserver: Path) -> Iterator[Proxy]:
    with proxied(apiserver) as front:
        yield front


@dataclass
class Watched:
    """A namespace that is listed and watched."""

    cluster: Cluster
    namespace: str
    cache: Cache = field(default_factory=Cache)
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = [Kind(CONFIG_MAPS, (self.namespace,))]
        self.sweeper = Sweeper(self.cluster, self.cache, kinds, self.hear)
        self.watcher = Watcher(self.cache, kinds, self.sweeper, self.hear)

    def hear(self, live: Manifest) -> None:
        self.heard.append(live["metadata"]["name"])

    async def create(self, name: str) -> None:
        body = {"metadata": {"name": name, "namespace": self.namespace}}
        await self.cluster.create(CONFIG_MAPS, self.namespace, body)

    async def delete(self, name: str) -> None:
        live = await self.cluster.get(CONFIG_MAPS, self.namespace, name)
        assert live is not None
        await self.cluster.delete(CONFIG_MAPS, live)

    def knows(self, name: str) -> bool:
        return self.cache.get("ConfigMap", (self.namespace, name)) is not None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watcher.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        async def nothing() -> None:
            return

        task = asyncio.create_task(self.sweeper.run(timedelta(hours=1), nothing))
        try:
            await self.sweeper.synced.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110 (what is looked at is no event)
            await asyncio.sleep(0.02)


@pytest.fixture
def play(
    world: World, front: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Run a scenario in a namespace of its own, through the proxy."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", front.address)))
    monkeypatch.setattr(watch, "_PAUSE_AFTER_FAILURE", 0.1)
    monkeypatch.setattr(sweep, "_PAUSE", 0.1)

    def run(scenario: Callable[[Watched], object]) -> None:
        async def played() -> None:
            cluster = await Cluster.connect()
            try:
                await scenario(Watched(cluster, world.elsewhere().namespace))  # type: ignore[misc]  # a coroutine's
            finally:
                await cluster.close()

        asyncio.run(played())

    yield run
    front.reset()


def test_it_begins_where_the_list_ends(play: Callable[..., None]) -> None:
    async def scenario(watched: Watched) -> None:
        await watched.create("stays")
        await watched.create("goes")
        await watched.sweeper.sweep()
        await watched.delete("goes")
        await watched.create("comes")
        before = len(watched.heard)
        async with watched.watching():
            await until(lambda: watched.knows("comes") and not watched.knows("goes"))
            assert "stays" not in watched.heard[before:]  # which the list has told of

    play(scenario)


def test_one_that_has_lost_its_place_has_all_listed(play: Callable[..., None]) -> None:
    async def scenario(watched: Watched) -> None:
        await watched.create("goes")
        async with watched.sweeping():
            # Long ago, as after a night without a network.
            watched.sweeper.versions["ConfigMap", watched.namespace] = 1
            await watched.delete("goes")
            await watched.create("comes")
            async with watched.watching():
                await until(lambda: watched.knows("comes") and not watched.knows("goes"))
                await watched.create("later")
                await until(lambda: watched.knows("later"))

    play(scenario)


def test_one_that_is_refused_logs_in_again(play: Callable[..., None], front: Proxy) -> None:
    async def scenario(watched: Watched) -> None:
        refused: list[str] = []

        def rule(call: Call) -> Fault | None:
            if "watch=true" not in call.path:
                return None
            refused.append(call.path)
            return REFUSED

        await watched.sweeper.sweep()
        front.rule = rule
        async with watched.watching():
            await until(lambda: len(refused) > 2)
            await watched.create("comes")
            assert not watched.knows("comes")
            front.rule = lambda _: None
            await until(lambda: watched.knows("comes"))

    play(scenario)


def test_one_that_is_cut_goes_on_where_it_was(play: Callable[..., None], front: Proxy) -> None:
    async def scenario(watched: Watched) -> None:
        await watched.sweeper.sweep()
        async with watched.watching():
            for number in range(1, 4):
                await watched.create(f"number-{number}")
                await until(lambda: len(watched.heard) >= number)  # noqa: B023 (waited for at once)
                front.cut()
        assert watched.heard == ["number-1", "number-2", "number-3"]

    play(scenario)


def removing(place: World, moment: int) -> Rule:
    """Let everything through, but delete the object and its children before one of the calls."""
    calls = count()

    def rule(_: Call) -> None:
        if next(calls) == moment:
            place.remove("goes")

    return rule


def test_of_what_goes_with_its_owner_nobody_hears_that_it_went_alone(
    play: Callable[..., None], front: Proxy, world: World
) -> None:
    """Whichever list of a sweep they go before."""

    async def scenario(watched: Watched) -> None:
        place = replace(world, namespace=watched.namespace, system=watched.namespace)
        kinds = main.watched(configuration(operator=place.operator()))
        orphaned: list[bool] = []

        def hear(live: Manifest) -> None:
            key = key_of(live)
            if live["kind"] == "ServiceAccount" and cache.get("ServiceAccount", key) is None:
                orphaned.append(cache.get("ModelDeployment", key) is None)

        cache = Cache()
        sweeper = Sweeper(watched.cluster, cache, kinds, hear)
        for moment in range(len(kinds)):
            place.create("goes", "no-model")
            place.api.post(KINDS["ServiceAccount"].format(place.namespace), json=ACCOUNT)
            await sweeper.sweep()
            front.rule = removing(place, moment)
            await sweeper.sweep()
            front.rule = lambda _: None
            await sweeper.sweep()
            assert not cache.keys("ModelDeployment")
        assert orphaned == [True] * len(kinds)

    play(scenario)
