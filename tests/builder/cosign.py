"""The real cosign, and keys for it."""

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.apiserver import program

TYPES = ("cyclonedx", "slsaprovenance1")
"""Of the attestations that we make, as `cosign verify-attestation` calls them."""


def private_pem(key: Any, encryption: Any = None) -> bytes:
    encryption = encryption or NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem


@dataclass(frozen=True)
class Pair:
    """A key in two files."""

    private: Path
    public: Path

    @classmethod
    def make(cls, folder: Path) -> "Pair":
        key = ec.generate_private_key(ec.SECP256R1())
        pair = cls(folder / "cosign.key", folder / "cosign.pub")
        pair.private.write_bytes(private_pem(key))
        pair.public.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        return pair


@dataclass(frozen=True)
class Cosign:
    """The program, with a home of its own."""

    home: Path

    async def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.home), "COSIGN_PASSWORD": "secret"}
        return await asyncio.to_thread(
            subprocess.run,
            [program("cosign"), *arguments],
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    async def verify(self, key: Path, reference: str) -> list[subprocess.CompletedProcess[str]]:
        """Verify an image, its bill of materials and its provenance, without the internet."""
        options = ("--key", key, "--private-infrastructure")
        return [
            await self.run("verify", *options, reference),
            *[
                await self.run("verify-attestation", *options, "--type", kind, reference)
                for kind in TYPES
            ],
        ]
