"""What an image says of itself: models, libraries, where it comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from modelops_runtime.bento import ServingRuntime

from modelops_operator.adapters.image_signatures import TrustedKey, verify
from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.oci import Reference
from modelops_operator.api.facts import Failure, Role
from modelops_operator.builder.attestations import CYCLONEDX, IN_TOTO
from modelops_operator.builder.image import Repository
from modelops_operator.builder.referrers import attached
from modelops_operator.cli.building import layers_of

OURS: Final = "modelops.dev/"
BASE: Final = "org.opencontainers.image.base."


class InspectError(Exception):
    """There is no such image of ours; the message says what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An image, described."""

    reference: str
    digest: str
    models: Mapping[str, str]
    """Name and version, by role."""
    run: str
    """The MLflow run of the predictor."""
    runtime: str
    """Version of the serving runtime."""
    profile: str
    """How it serves the predictor: Auto, Fast or Pyfunc."""
    lock: str
    base: str
    layers: Sequence[tuple[str, int]]
    """What each holds, and its bytes."""
    libraries: Sequence[str]
    """As name==version, of the bill of materials; empty when there is none."""
    sources: Mapping[str, str]
    """Where each model's files came from, of the provenance; empty when there is none."""
    builder: str
    """Who built it, of the provenance."""
    signed_by: str
    """Fingerprint of the key that signed it; empty when it was not verified."""

    def as_json(self) -> str:
        """Write it for programs."""
        return json.dumps(asdict(self), indent=2)


async def describe(
    store: ImageStore, reference: Reference, keys: Sequence[TrustedKey]
) -> Description:
    """Read what is known of an image, and verify it where there are keys that are trusted.

    Raises InspectError when it is not there, not one of ours or not signed by them, RegistryError.
    """
    manifest = await store.manifest(reference.repository, reference.version)
    if manifest is None:
        raise InspectError(f"there is no image {reference}")
    parsed = manifest.parsed()
    if "manifests" in parsed:
        there = ", ".join(
            f"{reference.host}/{reference.repository}@{each['digest']}"
            f" ({each['platform']['os']}/{each['platform']['architecture']})"
            for each in parsed["manifests"]
        )
        raise InspectError(f"{reference} has an image for each platform, name one: {there}")
    labels = await _labels(store, reference.repository, parsed["config"]["digest"])
    if f"{OURS}{Role.PREDICTOR}" not in labels:
        raise InspectError(
            f"{reference} was not built by modelops: it has no label {OURS}{Role.PREDICTOR}",
        )
    documents = await attached(Repository(store, reference.repository), manifest.digest)
    bill, provenance = documents.get(CYCLONEDX, {}), documents.get(IN_TOTO, {})
    return Description(
        reference=str(reference),
        digest=manifest.digest,
        models={role: labels[f"{OURS}{role}"] for role in Role if f"{OURS}{role}" in labels},
        run=labels.get(f"{OURS}run", ""),
        runtime=labels.get(f"{OURS}runtime", ""),
        profile=labels.get(f"{OURS}profile", ServingRuntime.AUTO),
        lock=labels.get(f"{OURS}lock", ""),
        base=f"{labels.get(f'{BASE}name', '')}@{labels.get(f'{BASE}digest', '')}",
        layers=await layers_of(store, reference.repository, manifest),
        libraries=[
            f"{part['name']}=={part['version']}"
            for part in bill.get("components", ())
            if part["type"] == "library"
        ],
        sources=_sources(provenance),
        builder=_builder(provenance),
        signed_by=await _signer(store, replace(reference, version=manifest.digest), keys),
    )


async def _signer(store: ImageStore, reference: Reference, keys: Sequence[TrustedKey]) -> str:
    if not keys:
        return ""
    found = await verify(store, reference, keys)
    if isinstance(found, Failure):
        raise InspectError(found.message)
    return found.key


async def _labels(store: ImageStore, repository: str, digest: str) -> Mapping[str, str]:
    config = json.loads(await store.blob(repository, digest))
    labels: Mapping[str, str] = (config.get("config") or {}).get("Labels") or {}
    return labels


def _sources(provenance: Mapping[str, Any]) -> Mapping[str, str]:
    if not provenance:
        return {}
    parts = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {part["name"]: part["uri"] for part in parts if "name" in part}


def _builder(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    builder = provenance["predicate"]["runDetails"]["builder"]
    versions = ", ".join(f"{name} {version}" for name, version in builder["version"].items())
    return f"{builder['id']} ({versions})"
