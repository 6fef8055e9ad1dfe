"""Signs images and what is said about them, so that `cosign verify --key` accepts it.

A signature is made and kept before the image has a tag. The same key gives the same signature of
the same image, so building again changes nothing; signatures of other keys stay beside ours.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from modelops_operator.adapters.cosign import (
    ENVELOPE,
    PREDICATE_TYPE,
    SIGNATURE,
    SIMPLE_SIGNING,
    attestation_tag,
    claim,
    pre_authentication,
    signature_tag,
)
from modelops_operator.adapters.oci import MANIFEST, Blob
from modelops_operator.api.reasons import Reason
from modelops_operator.builder.attestations import IN_TOTO
from modelops_operator.builder.failures import BuildError, broken
from modelops_operator.builder.image import CONFIG, CREATED, Repository, canonical

NEW_KEY: Final = (
    "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out cosign.key`"
    " and `openssl pkey -in cosign.key -pubout -out cosign.pub`"
)


class Signer(Protocol):
    """Signs with a key that it need not show."""

    async def sign(self, message: bytes) -> bytes:
        """Give the ECDSA signature over the message's SHA-256, in DER. Raises BuildError."""
        ...


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key on P-256 in a PEM file, which is read anew for every signature.

    A mounted Secret changes in place. Signatures are deterministic, as RFC 6979 has it.
    """

    path: Path

    async def sign(self, message: bytes) -> bytes:
        """Sign."""
        return self._key().sign(message, ec.ECDSA(SHA256(), deterministic_signing=True))

    def _key(self) -> ec.EllipticCurvePrivateKey:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error
        if b"BEGIN ENCRYPTED" in content:
            raise self._unusable(f"is encrypted, and only plain PEM is understood; {NEW_KEY}")
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise self._unusable(f"is not a private key in PEM; {NEW_KEY}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise self._unusable(f"is not an ECDSA key on P-256; {NEW_KEY}")
        return key

    def _unusable(self, what: str) -> BuildError:
        return broken(
            Reason.SIGNING_KEY_INVALID, f"the key {self.path} (`builder.signing.key`) {what}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """A layer of a manifest of signatures."""

    blob: Blob
    media_type: str
    annotations: Mapping[str, str]

    def descriptor(self) -> dict[str, Any]:
        return {
            "mediaType": self.media_type,
            "digest": self.blob.digest,
            "size": self.blob.size,
            "annotations": dict(self.annotations),
        }


async def sign(
    repository: Repository,
    digest: str,
    statements: Sequence[Mapping[str, Any]],
    signer: Signer,
) -> None:
    """Sign the image `digest`, and attest what in-toto statements (JSON trees) say about it.

    Raises RegistryError, or BuildError when the key cannot be used.
    """
    signature = await _signature(repository, digest, signer)
    attestations = [await _attestation(statement, signer) for statement in statements]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_keep(repository, signature_tag(digest), [signature]))
        tasks.create_task(_keep(repository, attestation_tag(digest), attestations))


async def _signature(repository: Repository, digest: str, signer: Signer) -> _Signed:
    document = claim(f"{repository.registry.host}/{repository.name}", digest)
    return _Signed(
        blob=Blob.of(document),
        media_type=SIMPLE_SIGNING,
        annotations={SIGNATURE: _encoded(await signer.sign(document))},
    )


async def _attestation(statement: Mapping[str, Any], signer: Signer) -> _Signed:
    content = canonical(statement)
    signature = await signer.sign(pre_authentication(IN_TOTO, content))
    envelope = {
        "payloadType": IN_TOTO,
        "payload": _encoded(content),
        "signatures": [{"keyid": "", "sig": _encoded(signature)}],
    }
    return _Signed(
        blob=Blob.of(canonical(envelope)),
        media_type=ENVELOPE,
        annotations={SIGNATURE: "", PREDICATE_TYPE: statement["predicateType"]},
    )


async def _keep(repository: Repository, tag: str, signed: Sequence[_Signed]) -> None:
    """Add layers to the manifest under a tag, unless they are there."""
    registry, name = repository.registry, repository.name
    found = await registry.manifest(name, tag)
    layers = list(found.parsed()["layers"]) if found else []
    new = [each for each in signed if each.descriptor() not in layers]
    if not new:
        return
    layers += [each.descriptor() for each in new]
    config = _config(layers)
    async with asyncio.TaskGroup() as tasks:
        for blob in (config, *(each.blob for each in new)):
            tasks.create_task(registry.push(name, blob))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": layers,
    }
    await registry.put_manifest(name, tag, canonical(manifest))


def _config(layers: Sequence[Mapping[str, Any]]) -> Blob:
    """Write the image configuration that registries expect beside layers."""
    diff_ids = [layer["digest"] for layer in layers]
    return Blob.of(
        canonical(
            {
                "architecture": "",
                "os": "",
                "created": CREATED,
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        )
    )


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
