"""Images in a folder: what a build uses where there is no registry, and the OCI image layout.

    blobs/sha256/<hex>             every blob and manifest, once for all repositories
    names/<repository>:<version>   the digest that a tag leads to, and the media type of it

Several processes may work in one folder: files are written elsewhere and then renamed.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from modelops_operator.adapters.oci import INDEX, MANIFEST, Blob, Manifest, sha256
from modelops_operator.adapters.registry_errors import RegistryErrors

LAYOUT_VERSION: Final = "1.0.0"
_COPIED: Final = 1024 * 1024


class ImageFolder:
    """An ImageStore on this machine's disk."""

    def __init__(self, folder: Path, host: str = "localhost") -> None:
        self.host = host
        self._folder = folder
        self._errors = RegistryErrors(str(folder), "")

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether the folder has a blob, in whichever repository."""
        del repository
        return self._path(digest).is_file()

    async def manifest(self, repository: str, version: str) -> Manifest | None:
        """Read a manifest by tag or digest; None when the repository does not have it."""
        name = self._name(repository, version)
        if not name.is_file():
            return None
        digest, media_type = name.read_text(encoding="utf-8").split()
        content = await self.blob(repository, digest)
        return Manifest(digest=digest, media_type=media_type, content=content)

    async def blob(self, repository: str, digest: str) -> bytes:
        """Read a small blob and check its digest."""
        content = await asyncio.to_thread(self._existing(repository, digest).read_bytes)
        if sha256(content) != digest:
            raise self._errors.damaged(f"{digest} has other content; delete {self._folder}")
        return content

    async def download(self, repository: str, digest: str, path: Path) -> None:
        """Give a file with a blob, without a second copy where the disk is the same."""
        await asyncio.to_thread(_link, self._existing(repository, digest), path)

    async def push(self, repository: str, blob: Blob) -> None:
        """Store a blob."""
        del repository
        await asyncio.to_thread(self._write, self._path(blob.digest), blob)

    async def ensure(self, repository: str, blob: Blob) -> bool:
        """Store a blob unless it is there; tell whether it was missing."""
        if await self.has_blob(repository, blob.digest):
            return False
        await self.push(repository, blob)
        return True

    async def push_growing(self, repository: str, path: Path, written: Awaitable[Blob]) -> Blob:
        """Store a file once it is written."""
        del path
        blob = await written
        await self.ensure(repository, blob)
        return blob

    async def tags(self, repository: str) -> Sequence[str]:
        """List a repository's tags."""
        names = (self._folder / "names").glob(f"{repository}:*")
        return [tag for path in names if ":" not in (tag := path.name.partition(":")[2])]

    async def mount(self, repository: str, digest: str, source: str) -> bool:
        """Tell whether the blob is there: repositories share all of them."""
        del source
        return await self.has_blob(repository, digest)

    async def put_manifest(
        self, repository: str, version: str, content: bytes, media_type: str = MANIFEST
    ) -> str:
        """Store a manifest under a tag or digest and give its digest."""
        blob = Blob.of(content)
        await self.push(repository, blob)
        for name in {version, blob.digest}:
            named = Blob.of(f"{blob.digest} {media_type}\n".encode())
            await asyncio.to_thread(self._write, self._name(repository, name), named)
        return blob.digest

    async def referrers(self, repository: str, digest: str) -> None:
        """Give nothing: what is here is found by name alone."""
        del repository, digest

    async def export(self, repository: str, digest: str, folder: Path, *, tag: str) -> None:
        """Write one image as an OCI image layout, which tools such as skopeo read.

        `folder` is made; of an older layout there, what is not this image's stays unnamed.
        """
        manifest = await self.manifest(repository, digest)
        if manifest is None:
            raise self._errors.fault(f"there is no {repository}@{digest}")
        entries = manifest.parsed().get("manifests", ())
        variants = [await self.manifest(repository, entry["digest"]) for entry in entries]
        images = [each for each in variants if each is not None] or [manifest]
        await asyncio.to_thread(self._export, manifest, images, folder, tag)

    # --- files -------------------------------------------------------------------------------

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        return self._folder / "blobs" / algorithm / value

    def _name(self, repository: str, version: str) -> Path:
        return self._folder / "names" / f"{repository}:{version}"

    def _existing(self, repository: str, digest: str) -> Path:
        path = self._path(digest)
        if not path.is_file():
            raise self._errors.fault(f"there is no blob {digest} for {repository}")
        return path

    def _write(self, path: Path, blob: Blob) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for offset in range(0, blob.size, _COPIED):
                    file.write(blob.read(offset, _COPIED))
            Path(draft).chmod(0o644)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _export(
        self, manifest: Manifest, images: Iterable[Manifest], folder: Path, tag: str
    ) -> None:
        blobs = [blob for image in images for blob in (image.digest, *_named_in(image))]
        for digest in (manifest.digest, *blobs):
            path = folder / self._path(digest).relative_to(self._folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            _link(self._path(digest), path)
        entry = {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.content),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        version = {"imageLayoutVersion": LAYOUT_VERSION}
        (folder / "oci-layout").write_text(json.dumps(version), encoding="utf-8")
        (folder / "index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _named_in(manifest: Manifest) -> Iterable[str]:
    """Give the digests that a manifest of an image is made of."""
    parsed: Any = manifest.parsed()
    return [parsed["config"]["digest"], *(layer["digest"] for layer in parsed["layers"])]


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)
