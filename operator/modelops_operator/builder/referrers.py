"""Attaches documents to an image: manifests that name it as their subject.

A registry with the referrers API finds them by itself. For others there is the tag that the
specification gives: an index under the digest of the image.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelops_operator.adapters.oci import INDEX, MANIFEST, Blob
from modelops_operator.builder.image import Repository, canonical

EMPTY: Final = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The manifest that documents are about."""

    digest: str
    size: int

    @property
    def tag(self) -> str:
        """Give the tag of its index where the registry has no referrers API."""
        return index_tag(self.digest)


async def attach(
    repository: Repository, subject: Subject, media_type: str, document: Mapping[str, Any]
) -> str:
    """Attach a document (a JSON tree); give the digest of its manifest. Raises RegistryError."""
    registry, name = repository.registry, repository.name
    content, empty = Blob.of(canonical(document)), Blob.of(b"{}")
    for blob in (content, empty):
        await registry.ensure(name, blob)
    about = {"mediaType": MANIFEST, "digest": subject.digest, "size": subject.size}
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": media_type,
            "config": {"mediaType": EMPTY, "digest": empty.digest, "size": empty.size},
            "layers": [{"mediaType": media_type, "digest": content.digest, "size": content.size}],
            "subject": about,
        }
    )
    stored = Blob.of(manifest)
    await registry.put_manifest(name, stored.digest, manifest)
    if await registry.referrers(name, subject.digest) is None:
        descriptor = {"mediaType": MANIFEST, "digest": stored.digest, "size": stored.size}
        await _list(repository, subject, descriptor | {"artifactType": media_type})
    return stored.digest


async def attached(repository: Repository, digest: str) -> Mapping[str, Mapping[str, Any]]:
    """Read the documents (JSON trees) attached to an image, by their media type.

    Raises RegistryError.
    """
    registry, name = repository.registry, repository.name
    listed = await registry.referrers(name, digest)
    if listed is None:
        index = await registry.manifest(name, index_tag(digest))
        listed = index.parsed()["manifests"] if index else ()
    documents = {}
    for entry in listed:
        manifest = await registry.manifest(name, entry["digest"])
        if manifest is None:
            continue
        for layer in manifest.parsed().get("layers", ()):
            if layer["mediaType"].endswith("+json"):
                content = await registry.blob(name, layer["digest"])
                documents[layer["mediaType"]] = json.loads(content)
    return documents


def index_tag(digest: str) -> str:
    """Give the tag of a manifest's index where the registry has no referrers API."""
    return digest.replace(":", "-")


async def _list(repository: Repository, subject: Subject, descriptor: Mapping[str, Any]) -> None:
    """Add a manifest to the index of a subject, unless it is there."""
    found = await repository.registry.manifest(repository.name, subject.tag)
    listed = {entry["digest"]: entry for entry in found.parsed()["manifests"]} if found else {}
    if descriptor["digest"] in listed:
        return
    listed[descriptor["digest"]] = descriptor
    manifests = [listed[digest] for digest in sorted(listed)]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    await repository.registry.put_manifest(repository.name, subject.tag, canonical(index), INDEX)
