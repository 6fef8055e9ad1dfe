"""Tidies Azure Container Registry through `azure-containerregistry`.

It lists, locks and deletes by Azure's own interface (`/acr/v1`), which tells of locks. Manifests
and what refers to them are read by our own client: the library asks for new tokens before each
request, and does not know referrers.
"""

from collections.abc import AsyncIterable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import httpx
from azure.containerregistry.aio import ContainerRegistryClient
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from modelops_operator.adapters.oci import Manifest, Registry
from modelops_operator.adapters.registry_errors import RegistryErrors

ADVICE = (
    "give the identity the roles AcrPull and AcrDelete on the registry (to lock images, AcrPush as "
    "well) or, where it is in ABAC mode, Container Registry Repository Catalog Lister and "
    "Container Registry Repository Contributor; a new role takes some minutes"
)


class _Changeable(Protocol):
    """Properties of a repository, a manifest or a tag."""

    can_delete: bool | None
    can_write: bool | None


class AzureUpkeep:
    """An `Upkeep` of a registry of Azure's, and its `Locks`."""

    def __init__(self, registry: Registry, client: ContainerRegistryClient) -> None:
        self.host = registry.host
        self._registry = registry
        self._client = client
        self._errors = RegistryErrors(registry.host, ADVICE)

    @property
    def locks(self) -> "AzureUpkeep":
        """Give its locks, which are Azure's."""
        return self

    async def repositories(self) -> Sequence[str]:
        """List the repositories."""
        with self._told("list the repositories"):
            return [name async for name in self._client.list_repository_names()]

    async def tags(self, repository: str) -> Sequence[str]:
        """List a repository's tags; none where there is no such repository."""
        with self._told(f"list the tags of {repository}"):
            tags = await _all(self._client.list_tag_properties(repository))
            return [tag.name for tag in tags]

    async def manifest(self, repository: str, version: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when the repository does not have it."""
        return await self._registry.manifest(repository, version)

    async def referrers(self, repository: str, digest: str) -> Sequence[Mapping[str, Any]] | None:
        """Give descriptors of what names a manifest as its subject; None: a tag tells that."""
        return await self._registry.referrers(repository, digest)

    async def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest with all of its tags; that it is gone already is no error."""
        with self._told(f"delete {repository}@{digest}"):
            await self._client.delete_manifest(repository, digest)

    async def locked(self, repository: str) -> Collection[str]:
        """Give what cannot be deleted: a lock is on the repository, the manifest, or a tag of it.

        Azure shows the locks of tags with the tags alone, and what cannot be written cannot be
        deleted either.
        """
        with self._told(f"list what is locked in {repository}"):
            try:
                properties = await self._client.get_repository_properties(repository)
            except ResourceNotFoundError:
                return ()
            manifests = await _all(self._client.list_manifest_properties(repository))
            tags = await _all(self._client.list_tag_properties(repository))
            if _is_locked(properties):
                return [manifest.digest for manifest in manifests]
            return {one.digest for one in (*manifests, *tags) if _is_locked(one)}

    async def lock(self, repository: str, digest: str) -> None:
        """Let nobody delete a manifest."""
        await self._let_delete(repository, digest, can_delete=False)

    async def unlock(self, repository: str, digest: str) -> None:
        """Let a manifest be deleted again, unless it is locked in yet another way."""
        await self._let_delete(repository, digest, can_delete=True)

    async def _let_delete(self, repository: str, digest: str, *, can_delete: bool) -> None:
        with self._told(f"{'unlock' if can_delete else 'lock'} {repository}@{digest}"):
            await self._client.update_manifest_properties(repository, digest, can_delete=can_delete)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except HttpResponseError as error:
            if error.response is None or error.status_code is None:
                raise self._errors.fault(f"{what}: {error.message}") from error
            answer = httpx.Response(error.status_code, text=error.response.text())
            raise self._errors.refused(answer, what) from error
        except AzureError as error:
            raise self._errors.unreachable(what, error) from error


async def _all(pages: AsyncIterable[Any]) -> Sequence[Any]:
    """Read a list to its end; of a repository that is gone, nothing."""
    try:
        return [each async for each in pages]
    except ResourceNotFoundError:
        return ()


def _is_locked(one: _Changeable) -> bool:
    return False in {one.can_delete, one.can_write}
