"""What tidying a registry needs of it: lists, deletion, and locks where it has them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from modelops_operator.adapters.oci import Manifest


class Locks(Protocol):
    """What a registry refuses to delete because somebody told it so. Raises RegistryError."""

    async def locked(self, repository: str) -> Collection[str]:
        """Give the digests of a repository's manifests that cannot be deleted."""

    async def lock(self, repository: str, digest: str) -> None:
        """Let nobody delete a manifest."""

    async def unlock(self, repository: str, digest: str) -> None:
        """Let a manifest be deleted again: takes back what `lock` did, and nothing else."""


class Upkeep(Protocol):
    """A registry's contents as garbage collection sees them. Raises RegistryError."""

    host: str

    @property
    def locks(self) -> Locks | None:
        """Give its locks; None where the registry has none."""

    async def repositories(self) -> Sequence[str]:
        """List the repositories that we may see."""

    async def tags(self, repository: str) -> Sequence[str]:
        """List a repository's tags; none where there is no such repository."""

    async def manifest(self, repository: str, version: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when the repository does not have it."""

    async def referrers(self, repository: str, digest: str) -> Sequence[Mapping[str, Any]] | None:
        """Give descriptors of what names a manifest as its subject; None: a tag tells that."""

    async def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest with all of its tags; that it is gone already is no error."""
