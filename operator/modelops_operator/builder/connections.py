"""Opens the connections of a build: image registries and the package index."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from modelops_operator.adapters.oci import Reference, Registry, find_credentials
from modelops_operator.api.config import RegistryConfig
from modelops_operator.builder.image import Base


@dataclass(slots=True)
class Connections:
    """What is open; closed together."""

    config: RegistryConfig
    ca_bundle: Path | None
    _stack: AsyncExitStack
    _registries: dict[str, Registry] = field(default_factory=dict)

    async def registry(self, host: str) -> Registry:
        """Give the connection to an image registry.

        Only the configured one is spoken to without encryption, and only if configured so; the
        credentials in the environment are for it alone.
        """
        if host not in self._registries:
            own = host == self.config.host
            credentials = find_credentials(
                host, self.config.docker_config, os.environ if own else {}
            )
            self._registries[host] = await self._stack.enter_async_context(
                Registry(
                    host,
                    insecure=own and self.config.insecure,
                    credentials=credentials,
                    ca_bundle=self.ca_bundle,
                )
            )
        return self._registries[host]

    async def base(self, reference: str) -> Base:
        """Give a base image by its address."""
        parsed = Reference.parse(reference)
        return Base(await self.registry(parsed.host), parsed)

    async def index(self) -> httpx.AsyncClient:
        """Give a client for the package index's files.

        Credentials are in the file that `NETRC` names, where uv looks for them too.
        """
        verify: ssl.SSLContext | bool = (
            ssl.create_default_context(cafile=self.ca_bundle) if self.ca_bundle else True
        )
        secrets = os.environ.get("NETRC")
        client = httpx.AsyncClient(
            auth=httpx.NetRCAuth(secrets) if secrets else None,
            verify=verify,
            timeout=httpx.Timeout(60, connect=10),
        )
        return await self._stack.enter_async_context(client)


@asynccontextmanager
async def connected(config: RegistryConfig, ca_bundle: Path | None) -> AsyncIterator[Connections]:
    """Open connections as they are asked for, and close them at the end."""
    async with AsyncExitStack() as stack:
        yield Connections(config, ca_bundle, stack)
