"""Where images are kept: a registry, or a folder on this machine."""

from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from modelops_operator.adapters.oci import MANIFEST, Blob, Manifest


class ImageStore(Protocol):
    """What building an image needs of the place that keeps it.

    Every method raises RegistryError where the place does not do what is asked.
    """

    host: str

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether a repository has a blob."""

    async def manifest(self, repository: str, version: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when the repository does not have it."""

    async def blob(self, repository: str, digest: str) -> bytes:
        """Read a small blob and check its digest."""

    async def download(self, repository: str, digest: str, path: Path) -> None:
        """Write a blob into a file and check its digest."""

    async def push(self, repository: str, blob: Blob) -> None:
        """Store a blob, whether or not it is there."""

    async def ensure(self, repository: str, blob: Blob) -> bool:
        """Store a blob unless it is there; tell whether it was missing."""

    async def push_growing(self, repository: str, path: Path, written: Awaitable[Blob]) -> Blob:
        """Store a file while somebody writes it, and give the blob that came of it."""

    async def tags(self, repository: str) -> Sequence[str]:
        """List a repository's tags."""

    async def mount(self, repository: str, digest: str, source: str) -> bool:
        """Make a blob of another repository appear in this one; False: it must be pushed."""

    async def put_manifest(
        self, repository: str, version: str, content: bytes, media_type: str = MANIFEST
    ) -> str:
        """Store a manifest under a tag or digest and give its digest."""

    async def referrers(self, repository: str, digest: str) -> Sequence[Mapping[str, Any]] | None:
        """Give descriptors of what names a manifest as its subject; None: a tag tells that."""
