"""Opens the connections of a build: image registries and the package index."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from azure.core.credentials_async import AsyncTokenCredential

from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.oci import Reference, Registry
from modelops_operator.adapters.registry_azure import (
    AzureCredentials,
    azure_credential,
    is_azure,
    workload_identity,
)
from modelops_operator.adapters.registry_credentials import (
    CredentialSource,
    DockerConfig,
    anonymous,
    basic,
)
from modelops_operator.api.config import RegistryAuth, RegistryConfig
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import broken
from modelops_operator.builder.image import Base

USERNAME: Final = "MODELOPS_REGISTRY_USERNAME"
PASSWORD: Final = "MODELOPS_REGISTRY_PASSWORD"  # noqa: S105 (the name of a variable)


@dataclass(slots=True)
class Connections:
    """What is open; closed together."""

    config: RegistryConfig
    ca_bundle: Path | None
    _stack: AsyncExitStack
    _store: ImageStore | None = None
    _registries: dict[str, Registry] = field(default_factory=dict)
    _azure: AsyncTokenCredential | None = None

    async def store(self, host: str) -> ImageStore:
        """Give the place for images that a host stands for. Raises BuildError as `registry`."""
        if self._store is not None and self._store.host == host:
            return self._store
        return await self.registry(host)

    async def registry(self, host: str) -> Registry:
        """Give the connection to an image registry.

        Only the configured one is spoken to without encryption, and only if configured so; the
        credentials in the environment are for it alone. Raises BuildError when the way that is
        configured to say who we are lacks something.
        """
        if host not in self._registries:
            self._registries[host] = await self._stack.enter_async_context(
                Registry(
                    host,
                    insecure=host == self.config.host and self.config.insecure,
                    credentials=await self._credentials(host),
                    ca_bundle=self.ca_bundle,
                )
            )
        return self._registries[host]

    async def _credentials(self, host: str) -> CredentialSource:
        """Choose what a registry is to know us by."""
        own, auth = host == self.config.host, self.config.auth
        automatic = auth is RegistryAuth.AUTO
        username = os.environ.get(USERNAME)
        if own and auth is RegistryAuth.BASIC and not username:
            raise broken(
                Reason.IMAGE_REGISTRY_DENIED,
                f"registry {host}: `registry.auth` is Basic and {USERNAME} is not set; name a "
                "Secret in `registry.credentialsSecret`, or set the variable",
            )
        if own and username and (automatic or auth is RegistryAuth.BASIC):
            return basic(host, username, os.environ.get(PASSWORD, ""))
        if (own or is_azure(host)) and auth is RegistryAuth.ACR:
            return await self._azure_credentials(host)
        # Base images may be in other registries than ours, whichever way ours is.
        path = self.config.docker_config
        if path and not (own and auth is RegistryAuth.ANONYMOUS):
            return DockerConfig(path, host)
        if automatic and is_azure(host) and workload_identity():
            return await self._azure_credentials(host)
        return anonymous(host)

    async def _azure_credentials(self, host: str) -> CredentialSource:
        if self._azure is None:
            try:
                credential = azure_credential(self.ca_bundle)
            except ValueError as error:
                raise broken(
                    Reason.IMAGE_REGISTRY_DENIED,
                    f"registry {host}: the pod's workload identity is incomplete: {error}; set "
                    "`registry.azure.clientId` and `registry.azure.tenantId`",
                ) from error
            self._azure = await self._stack.enter_async_context(credential)
        client = await self._stack.enter_async_context(self._http_client())
        return AzureCredentials(host, client, self._azure)

    def _http_client(self, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
        verify = ssl.create_default_context(cafile=self.ca_bundle) if self.ca_bundle else True
        timeout = httpx.Timeout(60, connect=10)
        return httpx.AsyncClient(auth=auth, verify=verify, timeout=timeout)

    async def base(self, reference: str) -> Base:
        """Give a base image by its address."""
        parsed = Reference.parse(reference)
        return Base(await self.store(parsed.host), parsed)

    async def index(self) -> httpx.AsyncClient:
        """Give a client for the package index's files.

        Credentials are in the file that `NETRC` names, where uv looks for them too.
        """
        secrets = os.environ.get("NETRC")
        client = self._http_client(httpx.NetRCAuth(secrets) if secrets else None)
        return await self._stack.enter_async_context(client)


@asynccontextmanager
async def connected(
    config: RegistryConfig, ca_bundle: Path | None, store: ImageStore | None = None
) -> AsyncIterator[Connections]:
    """Open connections as they are asked for, and close them at the end.

    `store` takes the place of the registry of its host.
    """
    async with AsyncExitStack() as stack:
        yield Connections(config, ca_bundle, stack, store)
