"""From model versions to a pushed image: the builder as the shell uses it."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from modelops_runtime import bento
from modelops_runtime.bento import ServingRuntime

from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.oci import INDEX, Blob, sha256
from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.api.config import PYPI, OperatorConfig
from modelops_operator.api.facts import Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ImageModel, ModelImageSpec
from modelops_operator.builder.attestations import (
    CYCLONEDX,
    IN_TOTO,
    Contents,
    provenance,
    sbom,
    stated_sbom,
)
from modelops_operator.builder.bundle import Bundle, read_bundle
from modelops_operator.builder.connections import Connections, connected
from modelops_operator.builder.environment import Environments, Job
from modelops_operator.builder.failures import BuildError, first_failure
from modelops_operator.builder.image import Image, Repository, canonical, index
from modelops_operator.builder.layers import CONTENT, Entry, Layer, write_layer
from modelops_operator.builder.lock import Lock, resolve
from modelops_operator.builder.locks import Locks
from modelops_operator.builder.models import FetchedModel, Serving, fetch, title
from modelops_operator.builder.referrers import Subject, attach
from modelops_operator.builder.scratch import Room, Share, remove_abandoned, scratch_folder
from modelops_operator.builder.signing import KeyFile, sign
from modelops_operator.builder.target import Target
from modelops_operator.builder.transfer import Report, Transfer
from modelops_operator.builder.wheels import WheelStore

BENTO: Final = "opt/bento"
MODELS: Final = f"{BENTO}/{bento.MODELS}"
LARGE: Final = 64 * 1024 * 1024
"""Bytes from which a layer is sent while it is written, before it is known whether it is new."""
LOST: Final = {Reason.IMAGE_INCOMPLETE, Reason.IMAGE_DAMAGED}
"""Why a registry refuses an image whose layers it was given."""
_Writing = asyncio.Task[tuple[Layer, Blob]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image in the registry."""

    reference: str
    """Repository and digest."""
    digest: str
    lock: str
    """Digest of the lock: images that share it have the same libraries."""
    form: ServingRuntime
    """How it serves the predictor: Fast or Pyfunc."""
    pushed: int = field(compare=False)
    """Bytes that were sent."""
    reused: int = field(compare=False)
    """Bytes that the registry had already."""


class Builder:
    """Builds images of models; several builds may run at the same time.

    Its connections are opened with the first build and kept, so `close` it (or use it as an
    asynchronous context manager). What it has built it remembers in the registry alone, or in the
    `store` that takes the place of the configured registry.
    """

    def __init__(self, config: OperatorConfig, store: ImageStore | None = None) -> None:
        self._config = config
        self._store = store
        self._opening = asyncio.Lock()
        self._connections: AbstractAsyncContextManager[Connections] | None = None
        self._site: _Site | None = None
        self._going: dict[ModelImageSpec, _Going] = {}

    async def build(self, spec: ModelImageSpec, progress: Report) -> BuiltImage:
        """Build and push the image that `spec` asks for; who asks for the same shares the build.

        `progress` is called with the step (words for people) and the bytes pushed so far. Raises
        BuildError, which has a Failure for people and the last lines of the log. Cancelling it is
        safe at any moment: nothing is tagged before all of it is there. The build ends when nobody
        is left who asked.
        """
        going = self._going.get(spec)
        if going is None:
            going = self._going[spec] = _Going()
            going.task = asyncio.create_task(self._build(spec, going.tell))
            going.task.add_done_callback(lambda _: self._over(spec, going))
        going.reports.append(progress)
        try:
            return await asyncio.shield(going.task)
        finally:
            going.reports.remove(progress)
            if not going.reports:
                self._over(spec, going)
                going.task.cancel()
                await asyncio.wait({going.task})

    def _over(self, spec: ModelImageSpec, going: "_Going") -> None:
        """Let whoever asks from now on begin anew."""
        if self._going.get(spec) is going:
            del self._going[spec]

    async def _build(self, spec: ModelImageSpec, progress: Report) -> BuiltImage:
        try:
            site = await self._opened()
            async with scratch_folder() as folder:
                with site.room.share() as share:
                    return await _Build(site, spec, folder, share, Transfer(progress)).run()
        except (BuildError, RegistryError, OSError, ExceptionGroup) as error:
            failure = first_failure(error)
            if isinstance(failure, BuildError):
                raise failure from error
            raise BuildError(failure.failure) from error

    async def close(self) -> None:
        """Close the connections."""
        connections, self._connections, self._site = self._connections, None, None
        if connections is not None:
            await connections.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _opened(self) -> "_Site":
        async with self._opening:
            if self._site is None:
                config = self._config
                await asyncio.to_thread(remove_abandoned)
                self._connections = connected(
                    config.registry, config.builder.ca_bundle, self._store
                )
                connections = await self._connections.__aenter__()
                store = self._store or await connections.registry(config.registry.host)
                cache = Repository(store, f"{config.registry.prefix}/cache".lstrip("/"))
                self._site = _Site(
                    config,
                    connections,
                    await connections.index(),
                    Environments(cache),
                    Locks(cache),
                    Room(config.builder.scratch_bytes),
                )
            return self._site


@dataclass(slots=True)
class _Going:
    """A build under way, and who hears of it."""

    reports: list[Report] = field(default_factory=list)
    task: asyncio.Task[BuiltImage] = field(init=False)

    def tell(self, step: str, pushed: int) -> None:
        for report in self.reports:
            report(step, pushed)


@dataclass(frozen=True, slots=True)
class _Site:
    """What all builds share."""

    config: OperatorConfig
    connections: Connections
    index: httpx.AsyncClient
    environments: Environments
    locks: Locks
    room: Room


class _Build:
    """One build."""

    def __init__(
        self, site: _Site, spec: ModelImageSpec, folder: Path, share: Share, transfer: Transfer
    ) -> None:
        self._site = site
        self._share = share
        self._spec = spec
        self._folder = folder
        self._transfer = transfer
        self._predictor = next(model for model in spec.models if model.role == "predictor")

    async def run(self) -> BuiltImage:
        repository = await self._repository()
        targets = [Target(self._spec.python, platform) for platform in self._spec.platforms]
        bundle = await asyncio.to_thread(
            read_bundle, self._site.config.builder.runtime_bundle, self._spec.runtime.version
        )
        self._transfer.begin("Fetching models")
        # Nothing waits for what it does not need: a layer is sent while other models are fetched.
        async with asyncio.TaskGroup() as tasks:
            fetching = [tasks.create_task(self._fetch(model)) for model in self._spec.models]
            writing = [
                tasks.create_task(self._write_bento(tasks, repository)),
                *(tasks.create_task(self._write(tasks, repository, each)) for each in fetching),
            ]
            models = [await each for each in fetching]
            # One after the other: what they have in common, the second finds.
            assembled = [
                await self._assemble(repository.name, bundle, models, target) for target in targets
            ]
            own = dict([await each for each in writing])
            variants = [self._complete(*parts, own.keys()) for parts in assembled]
            for variant in variants:
                tasks.create_task(repository.registry.push(repository.name, variant.config))
        # What is said about an image is there before the image has a tag to be found by.
        for variant in variants:
            await self._describe(repository, variant, models)
        self._transfer.begin("Pushing the image")
        try:
            return await self._publish(repository, variants, models)
        except RegistryError as error:
            if error.failure.reason not in LOST:
                raise
        # Distribution 2 may lose a layer that two builders push at the same time.
        for variant in variants:
            blobs = [*own.values(), variant.config]
            await self._supply(repository, variant.environment, blobs)
        return await self._publish(repository, variants, models)

    async def _repository(self) -> Repository:
        host, _, name = self._spec.repository.partition("/")
        return Repository(await self._site.connections.store(host), name)

    # --- what goes in ------------------------------------------------------------------------

    async def _fetch(self, model: ImageModel) -> FetchedModel:
        folder = self._folder / "models" / model.role
        await asyncio.to_thread(folder.mkdir, parents=True)
        return await fetch(
            model,
            self._spec.tracking_uri,
            folder,
            serving=Serving(self._spec.runtime.profile, self._spec.python),
            claim=self._share.claim,
        )

    async def _lock(self, bundle: Bundle, models: Sequence[FetchedModel], target: Target) -> Lock:
        heavy = [model for model in models if not model.fast]
        if not heavy and PYPI in self._site.config.builder.index_urls:
            return bundle.lock(target)  # which names the files there
        self._transfer.begin("Resolving requirements")
        asked = [model.requirements() for model in heavy]
        own = bundle.requirements(fast=not heavy)
        wanted = sorted({*own, *(line for part in asked for line in part.wanted)})
        limits = sorted({line for part in asked for line in part.constraints})
        question = {
            "wanted": wanted,
            "constraints": limits,
            "runtime": bundle.lock(target).digest,
            "target": [target.python, target.platform],
            "rebuild": self._spec.rebuild,
        }

        async def answer() -> Lock:
            lock = await resolve(
                wanted,
                target,
                constraints=limits,
                preferred=bundle.lock_content,
                config=self._site.config.builder,
            )
            return await self._job().wheels.sized(lock)

        lock = await self._site.locks.answer(question, answer)
        return lock.with_local([bundle.wheel])

    async def _assemble(
        self, repository: str, bundle: Bundle, models: Sequence[FetchedModel], target: Target
    ) -> tuple[Image, Lock]:
        """Bring everything but our own layers into the repository, for one platform."""
        lock = await self._lock(bundle, models, target)
        base = await self._site.connections.base(self._spec.base)
        environment = await self._site.environments.ensure(
            repository, base=base, lock=lock, target=target, job=self._job()
        )
        return environment, lock

    def _job(self) -> Job:
        return Job(self._folder, WheelStore(self._folder, self._site.index), self._transfer)

    async def _write_bento(
        self, tasks: asyncio.TaskGroup, repository: Repository
    ) -> tuple[Layer, Blob]:
        return await self._write_layer(tasks, repository, "bento", "Bento", self._skeleton())

    async def _write(
        self, tasks: asyncio.TaskGroup, repository: Repository, fetching: Awaitable[FetchedModel]
    ) -> tuple[Layer, Blob]:
        model = await fetching
        entries = await asyncio.to_thread(_entries, model)
        return await self._write_layer(tasks, repository, model.model.role, model.title, entries)

    async def _write_layer(
        self,
        tasks: asyncio.TaskGroup,
        repository: Repository,
        name: str,
        content: str,
        entries: Sequence[Entry],
    ) -> tuple[Layer, Blob]:
        """Write a layer that is this image's own, and let it be sent meanwhile or afterwards."""
        path = self._folder / f"{name}.layer"
        large = sum(entry.size for entry in entries) > LARGE
        growing = large and not await self._is_known(repository, content)
        writing = tasks.create_task(asyncio.to_thread(write_layer, entries, path, content=content))
        tasks.create_task(self._send(repository, path if growing else None, writing))
        return await writing

    async def _send(self, repository: Repository, growing: Path | None, writing: _Writing) -> None:
        if growing:
            blob = await repository.registry.push_growing(
                repository.name, growing, _blob_of(writing)
            )
            sent = True
        else:
            blob = await _blob_of(writing)
            sent = await repository.registry.ensure(repository.name, blob)
        self._transfer.count(blob.size, sent=sent)

    async def _is_known(self, repository: Repository, content: str) -> bool:
        """Tell whether an image of this very version has a layer of such content: hardly new."""
        for tag in await repository.registry.tags(repository.name):
            if tag.startswith(f"{self._predictor.version}-"):
                manifest = await repository.registry.manifest(repository.name, tag)
                layers = manifest.parsed().get("layers", ()) if manifest else ()
                if any(layer.get("annotations", {}).get(CONTENT) == content for layer in layers):
                    return True
        return False

    def _skeleton(self) -> Sequence[Entry]:
        files = bento.skeleton(
            name=self._spec.repository.rpartition("/")[2],
            version=self._predictor.version,
            python=self._spec.python,
            models={str(model.role): f"{model.name}/{model.version}" for model in self._models()},
            runtime=self._spec.runtime.profile,
        )
        return [Entry.of(f"{BENTO}/{path}", content) for path, content in files.items()]

    def _models(self) -> Sequence[ImageModel]:
        return sorted(self._spec.models, key=lambda model: model.role)

    # --- what comes out ----------------------------------------------------------------------

    def _complete(self, environment: Image, lock: Lock, layers: Iterable[Layer]) -> "_Variant":
        labels = self._labels(lock.digest)
        image = environment.extended(
            layers, environment=bento.environment(), entrypoint=bento.entrypoint(), labels=labels
        )
        return _Variant(environment, lock, image, image.manifest(labels))

    def _labels(self, lock: str) -> Mapping[str, str]:
        models = {
            f"modelops.dev/{model.role}": f"{model.name}/{model.version}"
            for model in self._models()
        }
        # As in the Bento, nothing is said of Auto.
        profile = self._spec.runtime.profile
        said = {} if profile is ServingRuntime.AUTO else {"modelops.dev/profile": str(profile)}
        return (models | said) | {
            "modelops.dev/lock": lock,
            "modelops.dev/runtime": self._spec.runtime.version,
            "modelops.dev/run": self._predictor.run_id,
            "org.opencontainers.image.base.digest": self._spec.base.rpartition("@")[2],
            "org.opencontainers.image.base.name": self._spec.base.partition("@")[0],
            "org.opencontainers.image.title": title(self._predictor),
            "org.opencontainers.image.version": self._predictor.version,
        }

    def _contents(
        self, digest: str, variant: "_Variant", models: Sequence[FetchedModel]
    ) -> Contents:
        layers = zip(models, variant.image.layers[-len(models) :], strict=True)
        return Contents(
            spec=self._spec,
            lock=variant.lock,
            digest=digest,
            layers={model.model.role: layer.diff_id for model, layer in layers},
            fast={model.model.role for model in models if model.fast},
        )

    async def _describe(
        self, repository: Repository, variant: "_Variant", models: Sequence[FetchedModel]
    ) -> None:
        """Attach what the image is made of and where that came from, and sign all, as told to."""
        contents = self._contents(variant.digest, variant, models)
        if self._site.config.builder.attest:
            self._transfer.begin("Attaching bill of materials and provenance")
            subject = Subject(digest=variant.digest, size=len(variant.manifest))
            await attach(repository, subject, CYCLONEDX, sbom(contents))
            await attach(repository, subject, IN_TOTO, provenance(contents))
        await self._sign(repository, variant.digest, [contents])

    async def _sign(
        self, repository: Repository, digest: str, contents: Sequence[Contents]
    ) -> None:
        """Sign an image, its bills of materials and its provenance, when there is a key."""
        key = self._site.config.builder.signing.key
        if key is None:
            return
        self._transfer.begin("Signing")
        statements = [make(each) for each in contents for make in (stated_sbom, provenance)]
        await sign(repository, digest, statements, KeyFile(key))

    async def _supply(
        self, repository: Repository, environment: Image, own: Iterable[Blob]
    ) -> None:
        """Bring all layers into the repository, whether or not it says that they are there."""
        self._transfer.begin("Pushing lost layers again")
        await self._site.environments.mount(repository.name, environment, self._job())
        async with asyncio.TaskGroup() as tasks:
            for blob in own:
                tasks.create_task(repository.registry.push(repository.name, blob))

    async def _publish(
        self,
        repository: Repository,
        variants: Sequence["_Variant"],
        models: Sequence[FetchedModel],
    ) -> BuiltImage:
        if len(variants) == 1:
            (variant,) = variants
            digest, lock = variant.digest, variant.lock.digest
            await repository.registry.put_manifest(
                repository.name, self._tag(digest), variant.manifest
            )
        else:
            lock = sha256(canonical([variant.lock.digest for variant in variants]))
            digest = await self._publish_index(repository, variants, models, self._labels(lock))
        return BuiltImage(
            reference=f"{self._spec.repository}@{digest}",
            digest=digest,
            lock=lock,
            form=ServingRuntime.FAST if _predictor(models).fast else ServingRuntime.PYFUNC,
            pushed=self._transfer.pushed,
            reused=self._transfer.reused,
        )

    async def _publish_index(
        self,
        repository: Repository,
        variants: Sequence["_Variant"],
        models: Sequence[FetchedModel],
        labels: Mapping[str, str],
    ) -> str:
        """Store one image for each platform, and the list that nodes choose theirs from."""
        for variant in variants:
            await repository.registry.put_manifest(
                repository.name, variant.digest, variant.manifest
            )
        content = index([(variant.image, variant.manifest) for variant in variants], labels)
        digest = sha256(content)
        contents = [self._contents(digest, variant, models) for variant in variants]
        await self._sign(repository, digest, contents)
        registry = repository.registry
        return await registry.put_manifest(repository.name, self._tag(digest), content, INDEX)

    def _tag(self, digest: str) -> str:
        return f"{self._predictor.version}-{digest.partition(':')[2][:12]}"


@dataclass(frozen=True, slots=True)
class _Variant:
    """The image for one platform."""

    environment: Image
    lock: Lock
    image: Image
    manifest: bytes

    @property
    def digest(self) -> str:
        return sha256(self.manifest)

    @property
    def config(self) -> Blob:
        return self.image.config_blob()


def _predictor(models: Iterable[FetchedModel]) -> FetchedModel:
    return next(model for model in models if model.model.role is Role.PREDICTOR)


async def _blob_of(writing: _Writing) -> Blob:
    return (await writing)[1]


def _entries(model: FetchedModel) -> Sequence[Entry]:
    return [
        Entry.from_file(f"{MODELS}/{model.model.role}/{name}", path)
        for name, path in model.files().items()
    ]
