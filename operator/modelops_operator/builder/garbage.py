"""Finds the images in a registry that nobody needs any more, and deletes them.

Ours are images whose manifest has our annotations, and the environments and layers that builds
remember; what anything else made is not touched, nor are locks, by which the same models give the
same image a year later. Blobs are freed by the registry itself, as each does in its own way.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.adapters.registry_upkeep import Locks, Upkeep
from modelops_operator.api.facts import Role
from modelops_operator.builder.image import RECIPE
from modelops_operator.builder.referrers import index_tag

_PREDICTOR: Final = f"modelops.dev/{Role.PREDICTOR}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest of ours."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    model: str
    """Name of the predictor; empty for what builds remember."""
    version: str
    layers: frozenset[str]
    """Digests."""
    size: int
    """Bytes of its layers, which others may share."""
    variants: tuple[str, ...] = ()
    """Digests of the images for each platform, where it is a list of them."""
    locked: bool = False
    """The registry was told not to delete it."""

    @property
    def is_image(self) -> bool:
        """Tell an image from what builds remember."""
        return bool(self.model)


async def survey(registry: Upkeep, prefix: str) -> Sequence[Stored]:
    """List what is ours in the repositories under a path. Raises RegistryError."""
    found: list[Stored] = []
    for repository in await registry.repositories():
        if prefix and not repository.startswith(f"{prefix}/"):
            continue
        tagged: dict[str, list[str]] = {}
        manifests: dict[str, Mapping[str, Any]] = {}
        for tag in await registry.tags(repository):
            manifest = await registry.manifest(repository, tag)
            if manifest is not None:
                tagged.setdefault(manifest.digest, []).append(tag)
                manifests[manifest.digest] = manifest.parsed()
        locked = await registry.locks.locked(repository) if registry.locks else ()
        for digest, parsed in manifests.items():
            annotations = parsed.get("annotations", {})
            if _PREDICTOR not in annotations and RECIPE not in annotations:
                continue
            model, _, version = annotations.get(_PREDICTOR, "").rpartition("/")
            images = await _images(registry, repository, parsed)
            layers = {
                layer["digest"]: layer["size"] for image in images for layer in image["layers"]
            }
            found.append(
                Stored(
                    repository=repository,
                    digest=digest,
                    tags=tuple(sorted(tagged[digest])),
                    model=model,
                    version=version,
                    layers=frozenset(layers),
                    size=sum(layers.values()),
                    variants=tuple(entry["digest"] for entry in parsed.get("manifests", ())),
                    locked=digest in locked,
                )
            )
    return found


async def _images(
    registry: Upkeep, repository: str, manifest: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """Give the manifests that have layers: the image's own, or those of a list of images."""
    if "manifests" not in manifest:
        return [manifest]
    found = [
        await registry.manifest(repository, entry["digest"]) for entry in manifest["manifests"]
    ]
    return [each.parsed() for each in found if each is not None]


def unneeded(stored: Iterable[Stored], used: Collection[str], keep: int) -> Sequence[Stored]:
    """Choose what may go: what is not among the digests `used`, nor of a model's last versions.

    The `keep` highest versions of each model stay, and with each image that stays what builds
    remember of its layers.
    """
    everything = list(stored)
    images = [one for one in everything if one.is_image]
    versions: dict[tuple[str, str], set[int]] = {}
    for image in images:
        versions.setdefault((image.repository, image.model), set()).add(_number(image))
    newest = {
        model: set(sorted(found)[-keep:] if keep else ()) for model, found in versions.items()
    }
    kept = [
        image
        for image in images
        if image.digest in used or _number(image) in newest[image.repository, image.model]
    ]
    layers = frozenset(layer for image in kept for layer in image.layers)
    return [
        one for one in everything if (one not in kept if one.is_image else not one.layers <= layers)
    ]


def _number(image: Stored) -> int:
    """Give the version as a number; MLflow has no others, so anything else is the oldest."""
    return int(image.version) if image.version.isdecimal() else -1


async def lock(locks: Locks, used: Iterable[Stored]) -> None:
    """Have the registry refuse to delete images, whoever asks. Raises RegistryError."""
    for one in used:
        for digest in (one.digest, *one.variants):
            await locks.lock(one.repository, digest)


async def unlock(locks: Locks, doomed: Iterable[Stored]) -> None:
    """Let images be deleted again that `lock` has locked. Raises RegistryError."""
    for one in doomed:
        for digest in (one.digest, *one.variants):
            await locks.unlock(one.repository, digest)


async def delete(registry: Upkeep, doomed: Stored) -> None:
    """Delete a manifest, its tags, and what is attached to it. Raises RegistryError.

    The attachments go first: cut short, it is found again and finished.
    """
    if doomed.is_image:
        for digest in (doomed.digest, *doomed.variants):
            await _delete_attached(registry, doomed.repository, digest)
    for digest in (doomed.digest, *doomed.variants):
        await registry.delete_manifest(doomed.repository, digest)


async def _delete_attached(registry: Upkeep, repository: str, digest: str) -> None:
    tag = index_tag(digest)
    attached = await registry.referrers(repository, digest)
    listed = await registry.manifest(repository, tag)
    if attached is None and listed is not None:
        attached = listed.parsed().get("manifests", ())
    for descriptor in attached or ():
        await registry.delete_manifest(repository, descriptor["digest"])
    for name in (tag, f"{tag}.sig", f"{tag}.att", f"{tag}.sbom"):  # as cosign names them
        manifest = await registry.manifest(repository, name)
        if manifest is not None:
            await registry.delete_manifest(repository, manifest.digest)


async def delete_all(registry: Upkeep, doomed: Iterable[Stored]) -> Mapping[str, RegistryError]:
    """Delete what may go; give by reference what the registry did not delete, and why."""
    refused = {}
    for one in doomed:
        try:
            await delete(registry, one)
        except RegistryError as error:
            if not error.failure.permanent:
                raise
            refused[f"{registry.host}/{one.repository}@{one.digest}"] = error
    return refused
