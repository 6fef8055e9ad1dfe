"""Image manifests and configurations, and the base image that all of ours stand on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.oci import INDEX, MANIFEST, Blob, Reference, sha256
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.failures import BuildError, broken
from modelops_operator.builder.layers import Layer
from modelops_operator.builder.target import Target

CONFIG: Final = "application/vnd.oci.image.config.v1+json"
USER: Final = "65532"
RECIPE: Final = "modelops.dev/image"
"""Annotation on environments: what else than layers they are, so that one request reads all."""
CREATED: Final = "1970-01-01T00:00:00Z"
"""Every image's time of creation: the same content is the same image, whenever it is built."""
_INDEXES: Final = {INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Layers and the configuration of what runs on them."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    """The field `config` of the OCI image configuration: Env, Entrypoint, User, Labels, ..."""
    architecture: str

    def config_blob(self) -> Blob:
        """Write the image configuration."""
        return Blob.of(
            canonical(
                {
                    "architecture": self.architecture,
                    "os": "linux",
                    "created": CREATED,
                    "config": self.config,
                    "rootfs": {
                        "type": "layers",
                        "diff_ids": [layer.diff_id for layer in self.layers],
                    },
                }
            )
        )

    def manifest(self, annotations: Mapping[str, str]) -> bytes:
        """Write the manifest."""
        config = self.config_blob()
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
                "layers": [layer.descriptor() for layer in self.layers],
                "annotations": dict(annotations),
            }
        )

    def remembered(self) -> bytes:
        """Write the manifest in a way that `recall` reads without the image configuration."""
        recipe = {"architecture": self.architecture, "config": self.config}
        return self.manifest({RECIPE: canonical(recipe).decode()})

    @classmethod
    def recall(cls, manifest: bytes) -> "Image":
        """Read a manifest that `remembered` wrote."""
        parsed = json.loads(manifest)
        recipe = json.loads(parsed["annotations"][RECIPE])
        layers = tuple(Layer.read(descriptor) for descriptor in parsed["layers"])
        return cls(layers=layers, config=recipe["config"], architecture=recipe["architecture"])

    def extended(
        self,
        layers: Iterable[Layer],
        *,
        environment: Mapping[str, str],
        entrypoint: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> "Image":
        """Put layers on top and settings over those that are there."""
        variables = dict(line.split("=", 1) for line in self.config.get("Env") or ())
        variables |= environment
        config: dict[str, Any] = dict(self.config) | {
            "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
            "User": USER,
            "WorkingDir": "/tmp",  # noqa: S108 (the one folder that pods may write to)
        }
        if command := list(entrypoint):
            config |= {"Entrypoint": command, "Cmd": []}
        if labels:
            config["Labels"] = dict(self.config.get("Labels") or {}) | dict(labels)
        return Image(layers=(*self.layers, *layers), config=config, architecture=self.architecture)


def canonical(tree: Any) -> bytes:
    """Write JSON: the same tree always gives the same bytes."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def index(images: Iterable[tuple[Image, bytes]], annotations: Mapping[str, str]) -> bytes:
    """Write the list of images, each with its manifest, that nodes choose theirs from."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                {
                    "mediaType": MANIFEST,
                    "digest": sha256(manifest),
                    "size": len(manifest),
                    "platform": {"os": "linux", "architecture": image.architecture},
                }
                for image, manifest in images
            ],
            "annotations": dict(annotations),
        }
    )


async def read_image(registry: ImageStore, repository: str, manifest: bytes) -> Image:
    """Read an image's configuration to go with its manifest."""
    parsed = json.loads(manifest)
    config = json.loads(await registry.blob(repository, parsed["config"]["digest"]))
    layers = zip(parsed["layers"], config["rootfs"]["diff_ids"], strict=True)
    return Image(
        layers=tuple(Layer.read(descriptor, diff_id) for descriptor, diff_id in layers),
        config=config.get("config") or {},
        architecture=config["architecture"],
    )


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository and how to reach it."""

    registry: ImageStore
    name: str


@dataclass(frozen=True, slots=True)
class Base:
    """A base image and how to reach it."""

    registry: ImageStore
    reference: Reference

    @property
    def repository(self) -> Repository:
        """Give the repository that it is in."""
        return Repository(self.registry, self.reference.repository)

    async def read(self, target: Target) -> Image:
        """Read the image for a target; raise BuildError when there is none."""
        return await self._read(self.reference.version, target)

    async def _read(self, version: str, target: Target) -> Image:
        repository = self.reference.repository
        manifest = await self.registry.manifest(repository, version)
        if manifest is None:
            raise broken(
                Reason.BASE_IMAGE_NOT_FOUND,
                f"the registry has no base image {self.reference}; push it there, or correct "
                "`builder.bases`",
            )
        if manifest.media_type in _INDEXES:
            return await self._read(self._variant(manifest.parsed(), target), target)
        try:
            image = await read_image(self.registry, repository, manifest.content)
        except (LookupError, ValueError, TypeError) as error:
            raise self._unusable(f"cannot be understood ({error!r})") from error
        if image.architecture != target.architecture:
            raise self._unusable(f"is for {image.architecture}, not for {target.architecture}")
        return image

    def _variant(self, index: Mapping[str, Any], target: Target) -> str:
        for entry in index.get("manifests", ()):
            platform = entry.get("platform", {})
            if (platform.get("os"), platform.get("architecture")) == ("linux", target.architecture):
                return str(entry["digest"])
        raise self._unusable(f"has no variant for {target.platform}")

    def _unusable(self, what: str) -> BuildError:
        return broken(
            Reason.BASE_IMAGE_NOT_FOUND,
            f"the base image {self.reference} {what}; correct `builder.bases`",
        )


async def copy_layer(
    layer: Layer, source: Repository, destination: Repository, folder: Path
) -> bool:
    """Bring a layer into a repository and tell whether it had to be sent.

    Within one registry it is mounted; otherwise it passes through a file in `folder`.
    """
    registry = destination.registry
    if await registry.has_blob(destination.name, layer.digest):
        return False
    if source.registry.host == registry.host and await registry.mount(
        destination.name, layer.digest, source.name
    ):
        return False
    path = folder / f"{layer.digest.partition(':')[2]}.layer"
    await source.registry.download(source.name, layer.digest, path)
    await registry.push(destination.name, Blob(digest=layer.digest, size=layer.size, content=path))
    path.unlink()
    return True


async def publish(
    destination: Repository, image: Image, *, tag: str, annotations: Mapping[str, str]
) -> str:
    """Store an image whose layers are there, and give its digest."""
    await destination.registry.push(destination.name, image.config_blob())
    return await destination.registry.put_manifest(
        destination.name, tag, image.manifest(annotations)
    )
