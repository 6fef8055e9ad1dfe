"""Builds an image of registered models without a cluster, as the builder does in one."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from modelops_runtime import flavor
from modelops_runtime.bento import ServingRuntime

from modelops_operator.adapters.image_folder import ImageFolder
from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.mlflow import MlflowRegistry, ModelRegistryError
from modelops_operator.adapters.oci import Manifest, Reference
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelImageSpec
from modelops_operator.builder.build import Builder, BuiltImage
from modelops_operator.builder.bundle import LOCK_FILE
from modelops_operator.builder.connections import connected
from modelops_operator.builder.failures import broken
from modelops_operator.builder.images import WORKSPACE, write_workspace_bundle
from modelops_operator.builder.layers import CONTENT
from modelops_operator.builder.transfer import Report
from modelops_operator.cli.naming import ModelArgument
from modelops_operator.cli.versions import version_of
from modelops_operator.core.image import sanitized, wanted_image

FOLDER_HOST: Final = "localhost"
"""Stands for the registry where there is none."""


async def resolve(
    arguments: Iterable[ModelArgument], tracking_uri: str
) -> Mapping[Role, ModelVersion]:
    """Find the versions and their roles; a model without our flavor is taken as the predictor.

    Raises ModelRegistryError; raises BuildError when two have one role, or none is the predictor.
    """
    registry = MlflowRegistry(tracking_uri)
    found: dict[Role, ModelVersion] = {}
    try:
        for argument in arguments:
            version = await version_of(registry, argument)
            role = argument.role or await _role(registry, version)
            if role in found:
                raise broken(
                    Reason.MODEL_INVALID,
                    f"both {found[role].name} and {version.name} would be the {role}: say what "
                    f"they are for, as in drift={argument.name}@...",
                )
            found[role] = version
    finally:
        registry.close()
    if Role.PREDICTOR not in found:
        raise broken(Reason.MODEL_INVALID, "none of the models is a predictor: name one as well")
    return found


async def _role(registry: MlflowRegistry, version: ModelVersion) -> Role:
    path = f"{flavor.DATA}/{flavor.DESCRIPTION}"
    try:
        return Role(orjson.loads(await registry.read(version.name, version.version, path))["role"])
    except ModelRegistryError as error:
        if error.failure.reason is not Reason.ARTIFACT_NOT_FOUND:
            raise
        return Role.PREDICTOR
    except (ValueError, LookupError, TypeError) as error:
        raise broken(
            Reason.MODEL_INVALID,
            f"{path} of model {version.name!r} version {version.version} is not understood "
            f"({error!r}): register it again, or say its role, as in drift={version.name}@...",
        ) from error


def runtime_bundle(configured: Path, cache: Path) -> Path:
    """Find the serving runtime that goes into images: as configured, else of this checkout.

    Raises BuildError when there is neither.
    """
    if any(configured.glob(f"*/{LOCK_FILE}")):
        return configured
    if not (WORKSPACE / "uv.lock").is_file():
        raise broken(
            Reason.RUNTIME_NOT_FOUND,
            f"there is no serving runtime in {configured}: name the folder with --runtime-bundle "
            "(the builder's image has one), or run this from a checkout",
        )
    write_workspace_bundle(WORKSPACE, cache)
    return cache


async def by_digest(config: OperatorConfig, base: str) -> str:
    """Give a base image's address by digest, whichever way it was named. Raises BuildError."""
    try:
        reference = Reference.parse(base)
    except ValueError as error:
        raise broken(Reason.BASE_IMAGE_NOT_FOUND, f"--base: {error}") from error
    async with connected(config.registry, config.builder.ca_bundle) as connections:
        registry = await connections.registry(reference.host)
        manifest = await registry.manifest(reference.repository, reference.version)
    if manifest is None:
        raise broken(Reason.BASE_IMAGE_NOT_FOUND, f"there is no base image {reference}")
    return f"{reference.host}/{reference.repository}@{manifest.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build and where to."""

    config: OperatorConfig
    models: Mapping[Role, ModelVersion]
    runtime: ServingRuntime
    push: str
    """Registry and repository to push it to; empty to write it into `output`."""
    tag: str
    """Its tag, beside the one that images get anyway; empty for the predictor's version."""
    output: Path
    """Folder for it where it is not pushed."""
    cache: Path
    """Folder of layers that were made for earlier ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    built: BuiltImage
    reference: str
    layers: Sequence[tuple[str, int]]
    """What each layer holds, and its bytes."""
    seconds: float


async def build(order: Order, progress: Report) -> Outcome:
    """Build the image and push it, or write it as an OCI image layout.

    Raises BuildError, RegistryError.
    """
    begun = time.monotonic()
    config = order.config
    store = None if order.push else ImageFolder(order.cache, FOLDER_HOST)
    place = order.push or f"{FOLDER_HOST}/{sanitized(order.models[Role.PREDICTOR].name)}"
    wanted = wanted_image(order.models, rebuild=None, config=config, profile=order.runtime)["spec"]
    spec = ModelImageSpec.model_validate({**wanted, "repository": place})
    tag = order.tag or order.models[Role.PREDICTOR].version
    async with Builder(config, store) as builder:
        built = await builder.build(spec, progress)
    host, _, repository = place.partition("/")
    async with connected(config.registry, config.builder.ca_bundle, store) as connections:
        keeper = await connections.store(host)
        manifest = await keeper.manifest(repository, built.digest)
        if manifest is None:
            raise broken(Reason.BUILD_FAILED, f"{built.reference} is gone: run this again")
        await keeper.put_manifest(repository, tag, manifest.content, manifest.media_type)
    if store:
        await store.export(repository, built.digest, order.output, tag=tag)
    return Outcome(
        built=built,
        reference=f"{order.push}:{tag}" if order.push else f"oci:{order.output}:{tag}",
        layers=await layers_of(keeper, repository, manifest),
        seconds=time.monotonic() - begun,
    )


async def layers_of(
    store: ImageStore, repository: str, manifest: Manifest
) -> Sequence[tuple[str, int]]:
    """Tell what each layer of an image holds, and its bytes; of a list, those of all images."""
    images = [manifest.parsed()]
    if "manifests" in images[0]:
        found = [
            await store.manifest(repository, each["digest"]) for each in images[0]["manifests"]
        ]
        images = [each.parsed() for each in found if each is not None]
    layers = {layer["digest"]: layer for image in images for layer in image["layers"]}
    return [
        (layer.get("annotations", {}).get(CONTENT, "base image"), layer["size"])
        for layer in layers.values()
    ]
