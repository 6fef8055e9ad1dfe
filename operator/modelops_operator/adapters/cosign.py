"""Signatures and attestations as cosign writes them: what is signed, and where it is kept.

What is signed of an image is a small document that names it by digest. An image's signatures are
the layers of a manifest that any registry can keep, under a tag made of the image's digest: the
content of such a layer is the document, an annotation on it the signature. Attestations are kept
alike, each as a DSSE envelope around an in-toto statement.

The formats: `specs/SIGNATURE_SPEC.md` of sigstore/cosign, `protocol.md` of secure-systems-lab/dsse.
"""

import json
from typing import Final

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
"""Annotation of a layer: the signature in base64; empty where the envelope has it."""
PREDICATE_TYPE: Final = "predicateType"
"""Annotation of an attestation's layer."""
_CLAIM: Final = "cosign container image signature"


def signature_tag(digest: str) -> str:
    """Give the tag of an image's signatures."""
    return f"{digest.replace(':', '-')}.sig"


def attestation_tag(digest: str) -> str:
    """Give the tag of an image's attestations."""
    return f"{digest.replace(':', '-')}.att"


def claim(repository: str, digest: str) -> bytes:
    """Write the document that is signed: the image `digest` is meant for `repository`."""
    document = {
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": _CLAIM,
        },
        "optional": None,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def claimed_digest(document: bytes) -> str | None:
    """Read which image a signed document is about; None where it is no such document."""
    try:
        digest = json.loads(document)["critical"]["image"]["docker-manifest-digest"]
    except (ValueError, LookupError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def pre_authentication(media_type: str, content: bytes) -> bytes:
    """Write what DSSE signs for a content: its type and the lengths of both are covered too."""
    kind = media_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(content), content)
