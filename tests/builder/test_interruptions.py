"""Builds that end before their time, in each of their steps, and builds that many ask for."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.resources import ModelImageSpec
from modelops_operator.builder.build import Builder, BuiltImage
from modelops_operator.builder.scratch import remove_abandoned, scratch_folder

from tests.builder.conftest import Configure, MakeWheel, RunningMlflow
from tests.builder.cosign import Pair
from tests.builder.releases import SIGNED, spec_of
from tests.registries.proxy import proxied
from tests.registries.servers import RunningRegistry

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

Ending = Callable[["asyncio.Task[BuiltImage]"], None]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["__main__", "mlflow", __name__])


@dataclass(frozen=True)
class Site:
    """A builder whose runtime is a single module, and a model that requires another."""

    spec: ModelImageSpec
    settings: dict[str, Any]
    registry: RunningRegistry

    def under(self, prefix: str, host: str = "") -> tuple[OperatorConfig, ModelImageSpec]:
        """Give the same with a part of the registry that has nothing yet."""
        host = host or self.registry.host
        registry = {"host": host, "insecure": True, "prefix": prefix}
        config = OperatorConfig.model_validate(self.settings | {"registry": registry})
        base = self.spec.base.replace(self.registry.host, host)
        asked = {"repository": f"{host}/{prefix}/small", "base": base}
        return config, self.spec.model_copy(update=asked)

    def tags(self, prefix: str) -> list[str]:
        """Name the images that somebody may find."""
        data = self.registry.data / "docker/registry/v2/repositories"
        return [path.name for path in (data / prefix / "small/_manifests/tags").glob("1-*")]


@pytest.fixture
def settings(configure: Configure, make_wheel: MakeWheel, ours: Pair, tmp_path: Path) -> Any:
    """Configuration of a builder that has a small runtime and a folder of one wheel."""
    runtime = make_wheel({"modelops_runtime.py": b""}, "modelops_runtime", "0.1.0")
    toy = make_wheel({"toy.py": b"print('toy')"})
    place = tmp_path / "bundle" / "0.1.0"
    place.mkdir(parents=True)
    assert runtime.path
    runtime.path.rename(place / runtime.filename)
    (place / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "us"\npackages = []\n')
    assert toy.path
    return configure(
        builder={
            "runtimeBundle": str(place.parent),
            "indexUrls": [toy.path.parent.as_uri()],
            "attest": True,
            "signing": {"key": str(ours.private)},
        }
    )


@pytest.fixture
def site(mlflow: RunningMlflow, settings: Any, registry: RunningRegistry, tmp_path: Path) -> Site:
    files = {"MLmodel": SIGNED, "requirements.txt": b"toy==1.0\n"}
    model = mlflow.register(tmp_path.name, files, tmp_path / "in")
    config = OperatorConfig.model_validate(settings)
    return Site(spec_of([model], config, "small"), settings, registry)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# --- ends ------------------------------------------------------------------------------------


def cancel(building: "asyncio.Task[BuiltImage]") -> None:
    building.cancel()


def kill(_: "asyncio.Task[BuiltImage]") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(
    work: tuple[OperatorConfig, ModelImageSpec],
    scratch: Path,
    told: "Connection[str, str]",
    last: str,
    end: Ending,
) -> None:
    """Build in a process of its own until step `last` begins; tell the steps, and the digest."""
    tempfile.tempdir = str(scratch)

    async def build() -> None:
        def progress(step: str, _pushed: int) -> None:
            told.send(step)
            if step == last:
                end(building)

        async with Builder(work[0]) as builder:
            building = asyncio.create_task(builder.build(work[1], progress))
            with contextlib.suppress(asyncio.CancelledError):
                told.send((await building).digest)

    asyncio.run(build())


def outcome(
    work: tuple[OperatorConfig, ModelImageSpec],
    scratch: Path,
    last: str = "",
    end: Ending = cancel,
) -> list[str]:
    """Give what an attempt told: each step once."""
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=attempt, args=(work, scratch, theirs, last, end))
    process.start()
    theirs.close()
    told = list(dict.fromkeys(_received(ours)))
    process.join()
    assert process.exitcode == (-signal.SIGKILL if last and end is kill else 0)
    return told


def _received(connection: "Connection[str, str]") -> Iterator[str]:
    with contextlib.suppress(EOFError):
        while True:
            yield connection.recv()


def test_a_build_that_ends_in_any_step_leaves_no_tag_and_is_done_again(
    site: Site, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    *steps, digest = outcome(site.under("whole"), scratch)
    assert steps == [
        "Fetching models",
        "Resolving requirements",
        "Reading the base image",
        "Installing packages",
        "Mounting layers",
        "Attaching bill of materials and provenance",
        "Signing",
        "Pushing the image",
    ]
    abandoned = 0
    for number, step in enumerate(steps):
        work, prefix = site.under(f"ended-{number}"), f"ended-{number}"
        assert outcome(work, scratch, step, cancel)[-1] == step
        assert names(scratch) == []
        assert outcome(work, scratch, step, kill)[-1] == step
        assert site.tags(prefix) == [], step
        abandoned += len(names(scratch))
        assert outcome(work, scratch)[-1] == digest
        assert len(site.tags(prefix)) == 1, step
        assert names(scratch) == [], "the next builder tidies up"
    assert abandoned == len(steps)


async def test_whoever_tidies_up_leaves_the_folders_of_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "modelops-build-dead" / "models").mkdir(parents=True)
    async with scratch_folder() as folder:
        remove_abandoned()
        assert names(tmp_path) == [folder.name]
    assert not names(tmp_path)


# --- many ------------------------------------------------------------------------------------


async def test_there_is_one_build_however_many_ask(site: Site, registry: RunningRegistry) -> None:
    async with proxied(f"http://{registry.host}") as proxy:
        config, spec = site.under("many", proxy.host)
        another = spec.model_copy(update={"repository": f"{proxy.host}/many/another"})
        begun = asyncio.Event()
        steps: list[list[str]] = [[], []]

        def one(step: str, _pushed: int) -> None:
            steps[0].append(step)

        def two(step: str, _pushed: int) -> None:
            steps[1].append(step)
            begun.set()

        async with Builder(config) as builder:
            orders = ((spec, one), (spec, two), (spec, two), (another, lambda *_: None))
            asked = [asyncio.create_task(builder.build(*order)) for order in orders]
            await begun.wait()
            asked[0].cancel()
            first, second, third, other = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, BuiltImage)
    assert second == third
    assert isinstance(other, BuiltImage)
    assert steps[0] == ["Fetching models"]
    written = Counter(
        (path.partition("/uploads/")[0], path.partition("&digest=")[2])
        for method, path, _ in proxy.seen
        # An image's list of what refers to it grows with each of them.
        if method == "PUT" and "/manifests/sha256-" not in path
    )
    assert [written[each] for each in written if written[each] > 1] == []
    for made in ("small/manifests/1-", "cache/manifests/lock-", "cache/manifests/environment-"):
        assert len([path for path, _ in written if f"/many/{made}" in path]) == 1


async def test_a_build_that_nobody_asks_for_any_more_ends(site: Site) -> None:
    config, spec = site.under("nobody")
    async with Builder(config) as builder:
        asked = [asyncio.create_task(builder.build(spec, lambda *_: None)) for _ in range(2)]
        await asyncio.sleep(0.05)
        for each in asked:
            each.cancel()
        await asyncio.wait(asked)
        assert all(each.cancelled() for each in asked)
        assert site.tags("nobody") == []
        await builder.build(spec, lambda *_: None)
    assert len(site.tags("nobody")) == 1
