"""Environments: the base image with an installed lock on top, kept in the registry.

An environment depends on the base, the lock and the version of Python, and on nothing else, so it
is made once and found again by a tag that is a hash of these. The registry is the only memory:
first the target repository is asked for the whole environment (then nothing need be sent or
mounted), next the cache repository, then the cache repository for each single layer (which a lock
that differs in one package shares with others); only what nobody has is built from wheels.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count as count_up
from pathlib import Path
from typing import Final

from modelops_operator.adapters.oci import Blob
from modelops_operator.builder.bytecode import same_version
from modelops_operator.builder.image import (
    Base,
    Image,
    Repository,
    canonical,
    copy_layer,
)
from modelops_operator.builder.layers import Layer, write_layer
from modelops_operator.builder.lock import Lock, LockedWheel
from modelops_operator.builder.target import Target
from modelops_operator.builder.transfer import Transfer
from modelops_operator.builder.wheels import PREFIX, WheelStore, frame, installed

LAYOUT: Final = 2
"""Raised whenever the same wheels give another layer, or layers are remembered in another form:
those made before are then not used again."""
SINGLES: Final = 24
"""The largest wheels get a layer each; the others share one."""
VARIABLES: Final = {
    "PATH": f"/{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 (the one folder that pods may write to)
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Wheels that share a layer."""

    wheels: tuple[LockedWheel, ...]
    framed: bool = False
    """Also holds what makes the prefix a virtual environment."""

    def tag(self, python: str) -> str:
        """Give the tag that the layer is remembered by."""
        content = [
            *(LAYOUT, python, same_version(python), self.framed),
            *(wheel.sha256 for wheel in self.wheels),
        ]
        return f"layer-{sha256(canonical(content)).hexdigest()[:32]}"

    @property
    def work(self) -> tuple[int, int]:
        """Tell how long it takes beside others: most files, then most bytes."""
        return len(self.wheels), sum(wheel.size for wheel in self.wheels)

    @property
    def content(self) -> str:
        """Tell in words what the layer holds."""
        names = [f"{wheel.name} {wheel.version}" for wheel in self.wheels]
        return ", ".join(["virtual environment", *names] if self.framed else names)


def grouped(lock: Lock) -> tuple[Group, ...]:
    """Deal wheels to layers: large ones alone, small ones together, our own apart."""
    fetched = [wheel for wheel in lock.wheels if not wheel.own]
    largest = sorted(fetched, key=lambda wheel: (-wheel.size, wheel.name))[:SINGLES]
    rest = tuple(wheel for wheel in fetched if wheel not in largest)
    own = tuple(wheel for wheel in lock.wheels if wheel.own)
    return (
        *(Group((wheel,)) for wheel in sorted(largest)),
        *([Group(rest)] if rest else []),
        Group(own, framed=True),
    )


@dataclass(frozen=True, slots=True)
class Job:
    """What one build works with."""

    folder: Path
    """For files that are not needed after it."""
    wheels: WheelStore
    transfer: Transfer


class _Processors:
    """A semaphore whose next is what takes longest: in the end no processor waits for it alone."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._arrivals = count_up()

    @asynccontextmanager
    async def one(self, work: tuple[int, int]) -> AsyncIterator[None]:
        """Hold a processor for so much work."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            order = (-work[0], -work[1], next(self._arrivals))
            heappush(self._waiting, (*order, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # its turn came at the same moment
                    self._release()
                raise
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        while self._waiting:
            *_, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Environments:
    """Makes environments in the registry of a cache repository, and finds them again there."""

    def __init__(self, cache: Repository) -> None:
        self._registry = cache.registry
        self._cache = cache
        self._locks: dict[str, asyncio.Lock] = {}
        self._processors = _Processors(os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "layers")

    async def ensure(
        self, repository: str, *, base: Base, lock: Lock, target: Target, job: Job
    ) -> Image:
        """Give the environment, with all of its layers in `repository`.

        Raises BuildError or RegistryError, possibly several of them in an ExceptionGroup.
        """
        tag = _tag(base, lock, target)
        # Builds of one environment wait for the first of them instead of doing its work again.
        async with self._locks.setdefault(tag, asyncio.Lock()):
            image = await self._remembered(repository, tag)
            if image is not None:
                _count_reused(image, job.transfer)
                return image
            image = await self._remembered(self._cache.name, tag)
            if image is None:
                image = await self._make(base, lock, target, job)
                await self._remember(self._cache.name, tag, image)
            else:
                _count_reused(image, job.transfer)
            job.transfer.begin("Mounting layers")
            await self.mount(repository, image, job)
            await self._remember(repository, tag, image)
            return image

    async def mount(self, repository: str, image: Image, job: Job) -> None:
        """Bring the layers of an environment into `repository`, whether or not they are there."""
        destination = Repository(self._registry, repository)
        async with asyncio.TaskGroup() as tasks:
            for layer in image.layers:
                tasks.create_task(self._mount_layer(layer, destination, job))

    # --- memory ------------------------------------------------------------------------------

    async def _remembered(self, repository: str, tag: str) -> Image | None:
        manifest = await self._registry.manifest(repository, tag)
        return None if manifest is None else Image.recall(manifest.content)

    async def _remember(self, repository: str, tag: str, image: Image) -> None:
        await self._registry.push(repository, image.config_blob())
        await self._registry.put_manifest(repository, tag, image.remembered())

    async def _mount_layer(self, layer: Layer, destination: Repository, job: Job) -> None:
        # No HEAD first: where a repository is new, which is when this runs, it has nothing yet.
        if not await self._registry.mount(destination.name, layer.digest, self._cache.name):
            await copy_layer(layer, self._cache, destination, job.folder)

    # --- making ------------------------------------------------------------------------------

    async def _make(self, base: Base, lock: Lock, target: Target, job: Job) -> Image:
        job.transfer.begin("Reading the base image")
        image = await base.read(target)
        job.transfer.begin("Installing packages")
        async with asyncio.TaskGroup() as tasks:
            for layer in image.layers:
                tasks.create_task(self._copy(layer, base, job))
            # The wheels of what takes longest are fetched first.
            making = {
                group: tasks.create_task(self._layer(group, target, job))
                for group in sorted(grouped(lock), key=lambda group: group.work, reverse=True)
            }
        layers = [making[group].result() for group in grouped(lock)]
        return image.extended(layers, environment=VARIABLES)

    async def _copy(self, layer: Layer, base: Base, job: Job) -> None:
        sent = await copy_layer(layer, base.repository, self._cache, job.folder)
        job.transfer.count(layer.size, sent=sent)

    async def _layer(self, group: Group, target: Target, job: Job) -> Layer:
        tag = group.tag(target.python)
        known = await self._registry.manifest(self._cache.name, tag)
        if known is not None:
            (layer,) = Image.recall(known.content).layers
            job.transfer.count(layer.size, sent=False)
            return layer
        async with asyncio.TaskGroup() as tasks:
            fetching = [tasks.create_task(job.wheels.fetch(wheel)) for wheel in group.wheels]
        paths = [task.result() for task in fetching]
        async with self._processors.one(group.work):
            layer, blob = await asyncio.get_running_loop().run_in_executor(
                self._threads, _write, group, paths, target, job.folder
            )
        sent = await self._registry.ensure(self._cache.name, blob)
        job.transfer.count(layer.size, sent=sent)
        if isinstance(blob.content, Path):
            blob.content.unlink()
        await self._remember_layer(tag, layer, target)
        return layer

    async def _remember_layer(self, tag: str, layer: Layer, target: Target) -> None:
        """Store an image of this layer alone: it keeps the blob alive and the diff id known."""
        image = Image(layers=(layer,), config={}, architecture=target.architecture)
        await self._remember(self._cache.name, tag, image)


def _write(group: Group, paths: Sequence[Path], target: Target, folder: Path) -> tuple[Layer, Blob]:
    with ExitStack() as stack:
        wheels = zip(group.wheels, paths, strict=True)
        entries = [
            *(frame(target.python) if group.framed else ()),
            *installed(wheels, target.python, stack),
        ]
        return write_layer(entries, folder / group.tag(target.python), content=group.content)


def _count_reused(image: Image, transfer: Transfer) -> None:
    for layer in image.layers:
        transfer.count(layer.size, sent=False)


def _tag(base: Base, lock: Lock, target: Target) -> str:
    content: Iterable[object] = (
        *(LAYOUT, base.reference.version, lock.digest, target.python, target.platform),
        same_version(target.python),
    )
    return f"environment-{sha256(canonical(list(content))).hexdigest()[:32]}"
