"""Looks for the signatures of images in their registry, and verifies them."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from modelops_operator.adapters.cosign import (
    SIGNATURE,
    SIMPLE_SIGNING,
    claimed_digest,
    signature_tag,
)
from modelops_operator.adapters.image_store import ImageStore
from modelops_operator.adapters.oci import Manifest, Reference
from modelops_operator.adapters.registries import Registries
from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.api.config import ConfigError
from modelops_operator.api.facts import Failure, Signed
from modelops_operator.api.reasons import Reason

MOST_SIGNATURES: Final = 64
"""As many of an image's signatures are looked at, the newest first."""
SIGN: Final = (
    "cosign sign --key KEY --new-bundle-format=false --use-signing-config=false --tlog-upload=false"
)
"""How people sign in the form that is looked for; cosign 3 has another one that it prefers."""
_DIGEST: Final = r"sha256:[0-9a-f]{64}"
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class ImageSignatures(Protocol):
    """Where it is known who signed which image."""

    async def verify(self, reference: str) -> Signed | Failure:
        """Tell whether a trusted key has signed an image, `host/repository@digest`.

        Failures with the reasons SignatureMissing and SignatureUntrusted say that none has; all
        others, that it is not known.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key whose signatures count."""

    key: ec.EllipticCurvePublicKey

    @property
    def fingerprint(self) -> str:
        """Give the digest of its DER form, as `openssl pkey -pubin -outform DER` writes it."""
        der = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{sha256(der).hexdigest()}"

    def has_signed(self, document: bytes, signature: bytes) -> bool:
        """Tell whether a signature of a document is by this key."""
        try:
            self.key.verify(signature, document, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def trusted_keys(path: Path) -> Sequence[TrustedKey]:
    """Read public keys from a PEM file. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    keys = [_key(path, match) for match in _BLOCK.finditer(content)]
    if not keys:
        raise _unusable(path, "holds no public key in PEM (`-----BEGIN PUBLIC KEY-----`)")
    return keys


def _key(path: Path, block: re.Match[bytes]) -> TrustedKey:
    kind = block[1].decode()
    if "PRIVATE" in kind:
        raise _unusable(path, "holds a private key; give the public one: `openssl pkey -pubout`")
    try:
        key = load_pem_public_key(block[0])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, f"holds a {kind} that is not a public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _unusable(path, "holds a key that is not ECDSA, and no other is verified")
    return TrustedKey(key)


def _unusable(path: Path, what: str) -> ConfigError:
    return ConfigError(f"the file of trusted keys {path} (`verification.keys`) {what}")


class CosignSignatures:
    """Signatures as cosign and our builder keep them, beside the image."""

    def __init__(self, registries: Registries, keys: Sequence[TrustedKey]) -> None:
        self._registries = registries
        self._keys = keys

    async def verify(self, reference: str) -> Signed | Failure:
        """Ask the image's registry."""
        place = Reference.parse(reference)
        try:
            registry = await self._registries.registry(place.host)
            return await verify(registry, place, self._keys)
        except RegistryError as error:
            return error.failure


async def verify(
    store: ImageStore, place: Reference, keys: Sequence[TrustedKey]
) -> Signed | Failure:
    """Tell whether one of the keys has signed an image, named by digest.

    That takes two requests for an image that was signed once. Raises RegistryError.
    """
    found = await store.manifest(place.repository, signature_tag(place.version))
    if found is None:
        return _unsigned(place)
    for digest, signature in _signatures(found):
        document = await store.blob(place.repository, digest)
        if claimed_digest(document) == place.version:
            for key in keys:
                if key.has_signed(document, signature):
                    return Signed(key=key.fingerprint)
    return _untrusted(place, keys)


def _untrusted(place: Reference, keys: Sequence[TrustedKey]) -> Failure:
    trusted = ", ".join(key.fingerprint for key in keys)
    return Failure(
        reason=Reason.SIGNATURE_UNTRUSTED,
        message=(
            f"no signature of {place} is by a key that is trusted ({trusted}): add the signer's "
            f"public key to `verification.keys`, or sign it with one of these: `{SIGN} {place}`"
        ),
        permanent=True,
    )


def _unsigned(place: Reference) -> Failure:
    return Failure(
        reason=Reason.SIGNATURE_MISSING,
        message=(
            f"nobody has signed {place} (its repository has no tag "
            f"{signature_tag(place.version)}): give the builder a key (`builder.signing`) and ask "
            f"for a rebuild (the annotation modelops.dev/rebuild), or sign it: `{SIGN} {place}`"
        ),
        permanent=True,
    )


def _signatures(manifest: Manifest) -> Sequence[tuple[str, bytes]]:
    """Give digests of documents with their signatures, the newest first; skip what is damaged."""
    try:
        layers = list(manifest.parsed()["layers"])
    except (ValueError, LookupError, TypeError):
        return []
    return [found for layer in layers[: -MOST_SIGNATURES - 1 : -1] if (found := _signature(layer))]


def _signature(layer: Any) -> tuple[str, bytes] | None:
    try:
        kind, digest, encoded = (
            layer["mediaType"],
            layer["digest"],
            layer["annotations"][SIGNATURE],
        )
        signature = base64.b64decode(encoded, validate=True)
    except (ValueError, LookupError, TypeError):
        return None
    known = kind == SIMPLE_SIGNING and re.fullmatch(_DIGEST, str(digest))
    return (digest, signature) if known else None
