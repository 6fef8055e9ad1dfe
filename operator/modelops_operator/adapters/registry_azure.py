"""Credentials for Azure Container Registry from a workload identity.

Azure's identity service knows the pod by its ServiceAccount token and gives a token of its own;
the registry exchanges that for a refresh token, which is what `registry_auth` gets its scoped
tokens with, as anywhere else. Every right is asked for by repository, so registries in the mode
`RBAC Registry + ABAC Repository Permissions` work like classic ones.
"""

import asyncio
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity.aio import DefaultAzureCredential, WorkloadIdentityCredential

from modelops_operator.adapters.registry_auth import RENEWED_AFTER, life_of, same_origin
from modelops_operator.adapters.registry_credentials import Credentials
from modelops_operator.adapters.registry_errors import RegistryErrors
from modelops_operator.adapters.registry_retry import insist

AUTHORITY: Final = "https://containerregistry.azure.net"
AUDIENCE: Final = f"{AUTHORITY}/.default"
"""Not that of Azure's management, which a policy of the registry may shut out."""
HOSTS: Final = (".azurecr.io", ".azurecr.cn", ".azurecr.us")
FEDERATED_TOKEN: Final = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 (the name of a variable)
ADVICE: Final = (
    "give the identity the role AcrPush (AcrPull to read) on the registry or, where it is in ABAC "
    "mode, Container Registry Repository Writer (Reader) on its repositories; a new role takes "
    "some minutes"
)


def is_azure(host: str) -> bool:
    """Tell by its name whether a registry is Azure's."""
    return host.endswith(HOSTS)


def workload_identity() -> bool:
    """Tell whether Azure's webhook gave this pod an identity."""
    return bool(os.environ.get(FEDERATED_TOKEN))


def azure_credential(ca_bundle: Path | None) -> AsyncTokenCredential:
    """Give the pod's workload identity; outside of a cluster, what Azure's tools are logged in as.

    Raises ValueError when the identity is only half configured.
    """
    trust = {"connection_verify": str(ca_bundle)} if ca_bundle else {}
    if workload_identity():
        return WorkloadIdentityCredential(**trust)
    return DefaultAzureCredential(**trust)


class AzureIdentity:
    """Who Azure takes us for: a credential of Azure's whose errors are `RegistryError`."""

    def __init__(self, host: str, credential: AsyncTokenCredential) -> None:
        self._credential = credential
        self._errors = RegistryErrors(host, ADVICE)

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Give a token of Azure's. Raises RegistryError."""
        try:
            return await self._credential.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            raise self._errors.denied(
                f"Azure does not know the builder: {_first_line(error)}; check that the identity "
                "has a federated credential for the builder's ServiceAccount, that the "
                "ServiceAccount names it (`registry.azure.clientId`), and that Azure's workload "
                "identity webhook runs"
            ) from error
        except (AzureError, OSError) as error:
            # The file with the pod's token may be replaced just now, too.
            raise self._errors.fault(f"no token from Azure: {_first_line(error)}") from error

    async def close(self) -> None:
        """Leave it to whoever opened the credential."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


class AzureCredentials:
    """What one registry of Azure's knows us by; a `CredentialSource`."""

    def __init__(
        self,
        host: str,
        client: httpx.AsyncClient,
        identity: AzureIdentity,
    ) -> None:
        self.advice = ADVICE
        self._origin = f"https://{host}"
        self._client = client
        self._identity = identity
        self._errors = RegistryErrors(host, ADVICE)
        self._refresh_token = ""
        self._renew_at = 0.0
        self._exchanging = asyncio.Lock()

    async def find(self, repository: str, realm: str, service: str) -> Credentials | None:
        """Give the registry's refresh token, exchanged anew when it is about to expire."""
        del repository
        if not same_origin(realm, self._origin):
            raise self._errors.denied(
                f"{self._origin} sends us to {realm or 'itself, with a password'}, where Azure's "
                "tokens must not go; set `registry.auth` for what this registry is"
            )
        async with self._exchanging:
            if time.monotonic() >= self._renew_at:
                asked_at = time.monotonic()
                self._refresh_token = await self._exchange(service)
                self._renew_at = asked_at + life_of(self._refresh_token) * RENEWED_AFTER
        return Credentials(identity_token=self._refresh_token)

    def forget(self) -> bool:
        """Exchange anew at the next `find`."""
        self._renew_at = 0.0
        return True

    async def _exchange(self, service: str) -> str:
        form = {
            "grant_type": "access_token",
            "service": service,
            "access_token": (await self._identity.get_token(AUDIENCE)).token,
        }
        url = f"{self._origin}/oauth2/exchange"
        response = await insist(
            lambda: self._client.post(url, data=form), f"exchange a token at {url}", self._errors
        )
        if response.is_error:
            raise self._errors.refused(response, f"exchange a token at {url}")
        try:
            return str(response.json()["refresh_token"])
        except (ValueError, LookupError, TypeError):
            raise self._errors.fault(f"{url} answered without a token") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
