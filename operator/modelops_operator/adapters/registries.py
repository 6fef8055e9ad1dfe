"""Opens image registries, and chooses for each what we are known by there."""

import os
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from azure.core.credentials_async import AsyncTokenCredential

from modelops_operator.adapters.http_client import http_client
from modelops_operator.adapters.oci import Registry
from modelops_operator.adapters.registry_azure import (
    AUTHORITY,
    AzureCredentials,
    AzureIdentity,
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
from modelops_operator.adapters.registry_errors import RegistryErrors
from modelops_operator.adapters.registry_upkeep import Upkeep
from modelops_operator.api.config import RegistryAuth, RegistryConfig

USERNAME: Final = "MODELOPS_REGISTRY_USERNAME"
PASSWORD: Final = "MODELOPS_REGISTRY_PASSWORD"  # noqa: S105 (the name of a variable)


class Registries:
    """Connections by host, opened when asked for. Use it as an asynchronous context manager."""

    def __init__(self, config: RegistryConfig, ca_bundle: Path | None) -> None:
        self.config = config
        self._ca_bundle = ca_bundle
        self._stack = AsyncExitStack()
        self._open: dict[str, Registry] = {}
        self._azure: AsyncTokenCredential | None = None
        self._identities: dict[str, AzureIdentity] = {}
        """By the host of a registry of Azure's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def registry(self, host: str) -> Registry:
        """Give the connection to an image registry.

        Only the configured one is spoken to without encryption, and only if configured so; the
        credentials in the environment are for it alone. Raises RegistryError when the way that is
        configured to say who we are lacks something.
        """
        if host not in self._open:
            registry = Registry(
                host,
                insecure=host == self.config.host and self.config.insecure,
                credentials=await self._credentials(host),
                ca_bundle=self._ca_bundle,
            )
            self._open[host] = await self._stack.enter_async_context(registry)
        return self._open[host]

    async def upkeep(self, host: str) -> Upkeep:
        """Give what tidies a registry: Azure's own way where an identity of Azure's opens it.

        Raises RegistryError as `registry`.
        """
        registry = await self.registry(host)
        identity = self._identities.get(host)
        if identity is None:
            return registry
        # Imported here, since only those who tidy should pay for it.
        from azure.containerregistry.aio import ContainerRegistryClient  # noqa: PLC0415 (see above)

        from modelops_operator.adapters.registry_azure_upkeep import AzureUpkeep  # noqa: PLC0415 (the same)

        trust = {"connection_verify": str(self._ca_bundle)} if self._ca_bundle else {}
        client = ContainerRegistryClient(f"https://{host}", identity, audience=AUTHORITY, **trust)
        return AzureUpkeep(registry, await self._stack.enter_async_context(client))

    async def _credentials(self, host: str) -> CredentialSource:
        """Choose what a registry is to know us by."""
        own, auth = host == self.config.host, self.config.auth
        automatic = auth is RegistryAuth.AUTO
        username = os.environ.get(USERNAME)
        if own and auth is RegistryAuth.BASIC and not username:
            raise RegistryErrors(host, "").denied(
                f"`registry.auth` is Basic and {USERNAME} is not set; name a Secret in "
                "`registry.credentialsSecret` (for the operator, in "
                "`verification.credentialsSecret`), or set the variable"
            )
        if own and username and (automatic or auth is RegistryAuth.BASIC):
            return basic(host, username, os.environ.get(PASSWORD, ""))
        if (own or is_azure(host)) and auth is RegistryAuth.ACR:
            return await self._azure_credentials(host)
        # Base images may be in other registries than ours, whichever way ours is.
        path = self.config.docker_config
        # Operator and builder share the configuration, and not what they are known by.
        found = path and (path.exists() or auth is RegistryAuth.DOCKER_CONFIG)
        if path and found and not (own and auth is RegistryAuth.ANONYMOUS):
            return DockerConfig(path, host)
        if automatic and is_azure(host) and workload_identity():
            return await self._azure_credentials(host)
        return anonymous(host)

    async def _azure_credentials(self, host: str) -> CredentialSource:
        if self._azure is None:
            try:
                credential = azure_credential(self._ca_bundle)
            except ValueError as error:
                raise RegistryErrors(host, "").denied(
                    f"the pod's workload identity is incomplete: {error}; set "
                    "`registry.azure.clientId` and `registry.azure.tenantId` (for the operator, "
                    "`operator.workloadIdentity`)"
                ) from error
            self._azure = await self._stack.enter_async_context(credential)
        client = await self._stack.enter_async_context(http_client(self._ca_bundle))
        self._identities[host] = AzureIdentity(host, self._azure)
        return AzureCredentials(host, client, self._identities[host])
