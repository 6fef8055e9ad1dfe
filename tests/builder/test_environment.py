"""Environments in a real registry, made of wheels that a web server on loopback has."""

import asyncio
import functools
import http.server
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from modelops_operator.adapters.oci import Reference
from modelops_operator.adapters.tls import tls_context
from modelops_operator.builder.environment import SINGLES, Environments, Job, _Processors, grouped
from modelops_operator.builder.failures import BuildError, first_failure
from modelops_operator.builder.image import Base, Image, Repository
from modelops_operator.builder.lock import Lock, LockedWheel
from modelops_operator.builder.target import Target
from modelops_operator.builder.transfer import Transfer
from modelops_operator.builder.wheels import WheelStore

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

TARGET = Target("3.11", "linux/amd64")


@dataclass
class Index:
    """Wheels by http, and what was asked for."""

    url: str
    folder: Path
    asked: list[str] = field(default_factory=list)

    def publish(self, wheel: LockedWheel) -> LockedWheel:
        path = Path(urlsplit(wheel.url).path)
        (self.folder / path.name).write_bytes(path.read_bytes())
        return replace(wheel, url=f"{self.url}/{path.name}", own=False)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            found.asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found = Index(f"http://127.0.0.1:{server.server_port}", folder)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@dataclass
class Workbench:
    """A builder that remembers nothing: each `ensure` is a new one in an own folder."""

    registry: Any
    base: str
    folder: Path
    cache: str
    requests: int = 0
    transfer: Transfer = field(default_factory=lambda: Transfer(lambda *_: None))

    async def ensure(self, repository: str, lock: Lock, target: Target = TARGET) -> Image:
        self.transfer = Transfer(lambda *_: None)
        folder = self.folder / f"build-{len(list(self.folder.iterdir()))}"
        folder.mkdir(parents=True)
        async with (
            self.registry.connect() as client,
            httpx.AsyncClient(verify=tls_context(None)) as web,
        ):
            image = await Environments(Repository(client, self.cache)).ensure(
                repository,
                base=Base(client, Reference.parse(self.base)),
                lock=lock,
                target=target,
                job=Job(folder, WheelStore(folder, web), self.transfer),
            )
            self.requests = client.requests
        return image


@pytest.fixture
def workbench(registry: Any, base: str, tmp_path: Path, request: Any) -> Workbench:
    folder = tmp_path / "builds"
    folder.mkdir()
    return Workbench(registry, base, folder, f"{request.node.name.replace('_', '-')}/cache")


MakeWheel = Callable[..., LockedWheel]


async def test_second_use_sends_nothing_and_asks_once(
    workbench: Workbench, index: Index, make_wheel: MakeWheel
) -> None:
    lock = Lock((index.publish(make_wheel({"toy.py": b"X = 1\n"})),))
    first = await workbench.ensure("env/second-use", lock)
    assert workbench.transfer.pushed > 0
    assert len(index.asked) == 1
    again = await workbench.ensure("env/second-use", lock)
    assert again == first
    assert workbench.requests == 1
    assert workbench.transfer.pushed == 0
    assert workbench.transfer.reused == sum(layer.size for layer in first.layers)
    assert len(index.asked) == 1


async def test_another_repository_gets_its_layers_mounted(
    workbench: Workbench, index: Index, make_wheel: MakeWheel
) -> None:
    lock = Lock((index.publish(make_wheel({"toy.py": b"X = 1\n"})),))
    first = await workbench.ensure("env/one", lock)
    other = await workbench.ensure("env/two", lock)
    assert other == first
    assert workbench.transfer.pushed == 0
    assert len(index.asked) == 1
    async with workbench.registry.connect() as client:
        for layer in other.layers:
            assert await client.has_blob("env/two", layer.digest)


async def test_a_library_more_sends_only_its_layer(
    workbench: Workbench, index: Index, make_wheel: MakeWheel
) -> None:
    big = [
        index.publish(make_wheel({f"big{n}.py": b"X = 1\n" * 9999}, name=f"big{n}"))
        for n in range(3)
    ]
    await workbench.ensure("env/before", Lock(tuple(big)))
    more = index.publish(make_wheel({"more.py": b"Y = 2\n"}, name="more"))
    index.asked.clear()
    image = await workbench.ensure("env/after", Lock((*big, more)))
    assert [path for path in index.asked if "big" in path] == []
    added = [layer for layer in image.layers if layer.content == "more 1.0"]
    assert workbench.transfer.pushed == added[0].size


async def test_what_is_in_the_layers(
    workbench: Workbench, index: Index, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    script = {"toy-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntoy = toy:main\n"}
    lock = Lock((index.publish(make_wheel({"toy.py": b"X = 1\n"} | script)),))
    local = make_wheel({"own.py": b""}, name="own")
    lock = lock.with_local([Path(urlsplit(local.url).path)])
    image = await workbench.ensure("env/content", lock)
    names = set()
    async with workbench.registry.connect() as client:
        for layer in image.layers:
            path = tmp_path / "layer"
            await client.download("env/content", layer.digest, path)
            with tarfile.open(path) as archive:
                names |= set(archive.getnames())
    site = "opt/venv/lib/python3.11/site-packages"
    assert {"etc/passwd", "opt/venv/bin/toy", "opt/venv/bin/python3", f"{site}/toy.py"} <= names
    assert f"{site}/own.py" in names
    assert [layer.content for layer in image.layers][1:] == [
        "toy 1.0",
        "virtual environment, own 1.0",
    ]
    assert "LANG=C.UTF-8" in image.config["Env"]
    assert any(line.startswith("PATH=/opt/venv/bin:") for line in image.config["Env"])
    assert image.config["User"] == "65532"


async def test_a_wheel_that_is_not_the_locked_one_is_refused(
    workbench: Workbench, index: Index, make_wheel: MakeWheel
) -> None:
    wheel = index.publish(make_wheel({"toy.py": b"X = 1\n"}))
    (index.folder / wheel.filename).write_bytes(b"something else")
    with pytest.raises(ExceptionGroup) as caught:
        await workbench.ensure("env/corrupt", Lock((wheel,)))
    failure = first_failure(caught.value).failure
    assert failure.reason == "PackageCorrupt"
    assert wheel.sha256 in failure.message
    async with workbench.registry.connect() as client:
        assert not await client.has_manifest("env/corrupt", "environment")


async def test_a_wheel_that_is_gone_is_named(workbench: Workbench, make_wheel: MakeWheel) -> None:
    wheel = replace(make_wheel({"toy.py": b""}), url="http://127.0.0.1:9/toy-1.0-py3-none-any.whl")
    with pytest.raises(ExceptionGroup) as caught:
        await workbench.ensure("env/gone", Lock((wheel,)))
    failure = first_failure(caught.value).failure
    assert failure.reason == "PackageIndexUnreachable"
    assert not failure.permanent
    assert "toy-1.0-py3-none-any.whl: cannot be fetched from 127.0.0.1:9" in failure.message


async def test_a_base_that_is_not_there_is_named(workbench: Workbench) -> None:
    workbench.base = f"{workbench.registry.host}/modelops/base@sha256:{'0' * 64}"
    with pytest.raises(BuildError, match="has no base image") as caught:
        await workbench.ensure("env/base", Lock(()))
    assert caught.value.failure.reason == "BaseImageNotFound"


async def test_a_base_for_another_processor_is_refused(workbench: Workbench) -> None:
    with pytest.raises(BuildError, match="is for amd64, not for arm64"):
        await workbench.ensure("env/arm", Lock(()), Target("3.11", "linux/arm64"))


async def test_a_base_in_another_registry_is_copied(
    workbench: Workbench, start_registry: Any, tmp_path: Path
) -> None:
    other = start_registry()
    async with other.connect() as client, workbench.registry.connect() as source:
        folder = tmp_path / "copy"
        folder.mkdir()
        async with httpx.AsyncClient(verify=tls_context(None)) as web:
            image = await Environments(Repository(client, "copied/cache")).ensure(
                "copied/env",
                base=Base(source, Reference.parse(workbench.base)),
                lock=Lock(()),
                target=TARGET,
                job=Job(folder, WheelStore(folder, web), Transfer(lambda *_: None)),
            )
        for layer in image.layers:
            assert await client.has_blob("copied/env", layer.digest)


async def test_of_the_layers_that_wait_the_one_that_takes_longest_is_next() -> None:
    processors, begun = _Processors(2), list[int]()

    async def write(size: int) -> None:
        async with processors.one((1, size)):
            begun.append(size)
            await asyncio.sleep(0)

    writing = [asyncio.create_task(write(size)) for size in (1, 2, 3, 9, 5, 7)]
    await asyncio.sleep(0)
    writing[4].cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    assert begun == [1, 2, 9, 7, 3]
    await asyncio.gather(write(8), write(6))  # nothing is lost with what was cancelled


def test_large_wheels_get_a_layer_each_and_ours_one_of_their_own() -> None:
    def wheel(name: str, size: int) -> LockedWheel:
        url = "https://example.org/w.whl"
        return LockedWheel(name=name, version="1", sha256=name, size=size, url=url)

    wheels = [wheel(f"w{n:02}", n) for n in range(SINGLES + 10)]
    lock = Lock((*wheels, replace(wheel("own", 999), own=True)))
    groups = grouped(lock)
    assert len(groups) == SINGLES + 2
    assert [len(group.wheels) for group in groups] == [1] * SINGLES + [10, 1]
    assert groups[-1].framed
    assert groups[-1].wheels[0].name == "own"
    assert {wheel.size for wheel in groups[-2].wheels} == set(range(10))


async def test_sizes_that_a_plain_index_does_not_tell_are_asked_for(
    index: Index, make_wheel: Callable[..., LockedWheel], tmp_path: Path
) -> None:
    whole = [index.publish(make_wheel({"a": bytes(n)}, f"w{n}")) for n in (10, 2000)]
    plain = [replace(wheel, size=0) for wheel in whole]
    gone = replace(plain[0], name="x", url=f"{index.url}/gone.whl")
    async with httpx.AsyncClient(verify=tls_context(None)) as web:
        lock = await WheelStore(tmp_path, web).sized(Lock((*plain, gone)))
    assert lock.wheels == (*whole, gone)
