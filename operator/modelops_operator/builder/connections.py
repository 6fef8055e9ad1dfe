"""Opens the connections of a build: image registries and the package index."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from modelops_operator.adapters.http_client import http_client
from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.oci import Reference, Registry
from modelops_operator.adapters.registries import Registries
from modelops_operator.adapters.registry_upkeep import Upkeep
from modelops_operator.api.config import RegistryConfig
from modelops_operator.builder.image import Base


@dataclass(slots=True)
class Connections:
    """What is open; closed together."""

    registries: Registries
    ca_bundle: Path | None
    _stack: AsyncExitStack
    _store: ImageStore | None = None

    @property
    def config(self) -> RegistryConfig:
        """Give the configuration of our own registry."""
        return self.registries.config

    async def store(self, host: str) -> ImageStore:
        """Give the place for images that a host stands for. Raises BuildError as `registry`."""
        if self._store is not None and self._store.host == host:
            return self._store
        return await self.registry(host)

    async def registry(self, host: str) -> Registry:
        """Give the connection to an image registry. Raises RegistryError."""
        return await self.registries.registry(host)

    async def upkeep(self, host: str) -> Upkeep:
        """Give what tidies an image registry. Raises RegistryError."""
        return await self.registries.upkeep(host)

    async def base(self, reference: str) -> Base:
        """Give a base image by its address."""
        parsed = Reference.parse(reference)
        return Base(await self.store(parsed.host), parsed)

    async def index(self) -> httpx.AsyncClient:
        """Give a client for the package index's files.

        Credentials are in the file that `NETRC` names, where uv looks for them too.
        """
        secrets = os.environ.get("NETRC")
        client = http_client(self.ca_bundle, httpx.NetRCAuth(secrets) if secrets else None)
        return await self._stack.enter_async_context(client)


@asynccontextmanager
async def connected(
    config: RegistryConfig, ca_bundle: Path | None, store: ImageStore | None = None
) -> AsyncIterator[Connections]:
    """Open connections as they are asked for, and close them at the end.

    `store` takes the place of the registry of its host.
    """
    async with AsyncExitStack() as stack:
        registries = await stack.enter_async_context(Registries(config, ca_bundle))
        yield Connections(registries, ca_bundle, stack, store)
