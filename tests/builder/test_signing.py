"""Signatures and attestations, judged by the real cosign on three real registries."""

import base64
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PublicFormat,
)
from modelops_operator.adapters.cosign import (
    SIGNATURE,
    SIMPLE_SIGNING,
    attestation_tag,
    claim,
    signature_tag,
)
from modelops_operator.adapters.image_signatures import SIGN, CosignSignatures, trusted_keys
from modelops_operator.adapters.oci import Blob, Registry
from modelops_operator.adapters.registries import Registries
from modelops_operator.api.config import ConfigError, RegistryConfig
from modelops_operator.api.facts import Failure, Signed
from modelops_operator.builder.attestations import CYCLONEDX, provenance, sbom, stated_sbom
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.image import Image, Repository, canonical, publish
from modelops_operator.builder.layers import Entry, write_layer
from modelops_operator.builder.referrers import Subject, attach
from modelops_operator.builder.signing import KeyFile, sign

from tests.builder.cosign import Cosign, Pair, private_pem
from tests.builder.test_attestations import CONTENTS

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

NAME = "t/signed"


async def push_image(client: Registry, folder: Path) -> str:
    """Push an image that nobody has pushed before; give its digest."""
    path = folder / "layer"
    layer, blob = write_layer([Entry.of("a", os.urandom(99))], path, content="a")
    await client.push(NAME, blob)
    image = Image(layers=(layer,), config={}, architecture="amd64")
    return await publish(Repository(client, NAME), image, tag="latest", annotations={})


async def sign_image(client: Registry, digest: str, key: Path) -> None:
    contents = replace(CONTENTS, digest=digest)
    statements = [stated_sbom(contents), provenance(contents)]
    await sign(Repository(client, NAME), digest, statements, KeyFile(key))


async def verify(running: Any, digest: str, *keys: Path) -> Signed | Failure:
    """Do what the operator does."""
    trusted = [key for path in keys for key in trusted_keys(path)]
    config = RegistryConfig(host=running.host, insecure=True)
    async with Registries(config, None) as registries:
        return await CosignSignatures(registries, trusted).verify(f"{running.host}/{NAME}@{digest}")


# --- what is accepted ------------------------------------------------------------------------


async def test_cosign_accepts_image_bill_and_provenance(
    each_registry: Any, ours: Pair, others: Pair, cosign: Cosign, tmp_path: Path
) -> None:
    async with each_registry.connect() as client:
        digest = await push_image(client, tmp_path)
        await sign_image(client, digest, ours.private)
        # Where there is the referrers API, cosign looks through what it lists.
        subject = Subject(digest=digest, size=1)
        await attach(Repository(client, NAME), subject, CYCLONEDX, sbom(CONTENTS))
    reference = f"{each_registry.host}/{NAME}@{digest}"

    accepted = await cosign.verify(ours.public, reference)
    for done in accepted:
        assert done.returncode == 0, done.stderr
        assert "signatures were verified against the specified public key" in done.stderr
    (claimed,) = json.loads(accepted[0].stdout)
    assert claimed["critical"]["image"] == {"docker-manifest-digest": digest}
    assert claimed["critical"]["identity"] == {"docker-reference": f"{each_registry.host}/{NAME}"}

    for done in await cosign.verify(others.public, reference):
        assert done.returncode != 0
        assert "no matching" in done.stderr
    fingerprint = trusted_keys(ours.public)[0].fingerprint
    assert await verify(each_registry, digest, others.public, ours.public) == Signed(
        key=fingerprint
    )


async def test_the_operator_accepts_what_cosign_signed(
    registry: Any, cosign: Cosign, tmp_path: Path
) -> None:
    async with registry.connect() as client:
        digest = await push_image(client, tmp_path)
    made = await cosign.run("generate-key-pair")
    assert made.returncode == 0, made.stderr
    reference = f"{registry.host}/{NAME}@{digest}"
    _, *advised = SIGN.replace("KEY", "cosign.key").split()
    done = await cosign.run(*advised, "--yes", reference)
    assert done.returncode == 0, done.stderr
    found = await verify(registry, digest, tmp_path / "cosign.pub")
    assert isinstance(found, Signed), found


async def test_signing_again_changes_nothing_and_another_key_adds_its_own(
    registry: Any, ours: Pair, others: Pair, cosign: Cosign, tmp_path: Path
) -> None:
    async with registry.connect() as client:
        digest = await push_image(client, tmp_path)
        tags = signature_tag(digest), attestation_tag(digest)
        await sign_image(client, digest, ours.private)
        first = [await client.manifest(NAME, tag) for tag in tags]
        before = client.requests
        await sign_image(client, digest, ours.private)
        assert client.requests - before == 2, "each manifest is read, and nothing is written"
        assert [await client.manifest(NAME, tag) for tag in tags] == first
        await sign_image(client, digest, others.private)
    reference = f"{registry.host}/{NAME}@{digest}"
    for pair in (ours, others):
        for done in await cosign.verify(pair.public, reference):
            assert done.returncode == 0, done.stderr


# --- what is refused -------------------------------------------------------------------------


async def test_an_image_without_signatures(
    registry: Any, ours: Pair, cosign: Cosign, tmp_path: Path
) -> None:
    async with registry.connect() as client:
        digest = await push_image(client, tmp_path)
    found = await verify(registry, digest, ours.public)
    assert isinstance(found, Failure)
    assert (found.reason, found.permanent) == ("SignatureMissing", True)
    assert "builder.signing" in found.message
    assert digest in found.message
    refused = await cosign.verify(ours.public, f"{registry.host}/{NAME}@{digest}")
    assert "no signatures found" in refused[0].stderr
    assert all(done.returncode for done in refused)


async def test_signatures_of_another_image_do_not_count(
    registry: Any, ours: Pair, cosign: Cosign, tmp_path: Path
) -> None:
    async with registry.connect() as client:
        signed, digest = await push_image(client, tmp_path), await push_image(client, tmp_path)
        await sign_image(client, signed, ours.private)
        for tag in (signature_tag, attestation_tag):
            manifest = await client.manifest(NAME, tag(signed))
            assert manifest is not None
            await client.put_manifest(NAME, tag(digest), manifest.content)
    await expect_refusal(registry, digest, ours, cosign)


async def test_a_signature_over_something_else_does_not_count(
    registry: Any, ours: Pair, cosign: Cosign, tmp_path: Path
) -> None:
    """What was signed is replaced by what it should have said to fit."""
    async with registry.connect() as client:
        signed, digest = await push_image(client, tmp_path), await push_image(client, tmp_path)
        await sign_image(client, signed, ours.private)
        for tag in (signature_tag, attestation_tag):
            found = await client.manifest(NAME, tag(signed))
            assert found is not None
            manifest = found.parsed()
            for layer in manifest["layers"]:
                content = await client.blob(NAME, layer["digest"])
                forged = Blob.of(forge(content, signed, digest))
                await client.push(NAME, forged)
                layer |= {"digest": forged.digest, "size": forged.size}
            await client.put_manifest(NAME, tag(digest), canonical(manifest))
    await expect_refusal(registry, digest, ours, cosign)


def forge(content: bytes, old: str, new: str) -> bytes:
    """Let a signed document speak of another image, leaving its signature as it is."""
    document = json.loads(content)
    if "payload" not in document:
        return content.replace(old.encode(), new.encode())
    statement = base64.b64decode(document["payload"]).decode()
    other = statement.replace(old.partition(":")[2], new.partition(":")[2])
    assert other != statement
    return canonical(document | {"payload": base64.b64encode(other.encode()).decode()})


async def expect_refusal(running: Any, digest: str, pair: Pair, cosign: Cosign) -> None:
    reference = f"{running.host}/{NAME}@{digest}"
    for done in await cosign.verify(pair.public, reference):
        assert done.returncode != 0
        assert "no matching" in done.stderr
    found = await verify(running, digest, pair.public)
    assert isinstance(found, Failure)
    assert (found.reason, found.permanent) == ("SignatureUntrusted", True)
    assert trusted_keys(pair.public)[0].fingerprint in found.message


@pytest.mark.parametrize(
    "layers",
    [
        None,
        "text",
        [1],
        [{"mediaType": SIMPLE_SIGNING}],
        [{"mediaType": SIMPLE_SIGNING, "digest": "../x", "annotations": {SIGNATURE: "AAAA"}}],
        [
            {
                "mediaType": SIMPLE_SIGNING,
                "digest": "DIGEST",
                "annotations": {SIGNATURE: "no base64"},
            }
        ],
        [{"mediaType": SIMPLE_SIGNING, "digest": "DIGEST", "annotations": {SIGNATURE: "AAAA"}}],
        [{"mediaType": "a/b", "digest": "DIGEST", "annotations": {SIGNATURE: "AAAA"}}],
    ],
)
async def test_rubbish_where_signatures_should_be(
    referrers: Any, ours: Pair, tmp_path: Path, layers: Any
) -> None:
    async with referrers.connect() as client:
        digest = await push_image(client, tmp_path)
        document = Blob.of(claim("r", digest))
        await client.push(NAME, document)
        content = canonical({"schemaVersion": 2, "layers": layers})
        content = content.replace(b"DIGEST", document.digest.encode())
        await client.put_manifest(NAME, signature_tag(digest), content)
    found = await verify(referrers, digest, ours.public)
    assert isinstance(found, Failure)
    assert found.reason == "SignatureUntrusted"


async def test_a_registry_that_does_not_let_us_in(guarded: Any, ours: Pair) -> None:
    found = await verify(guarded, "sha256:" + "0" * 64, ours.public)
    assert isinstance(found, Failure)
    assert (found.reason, found.permanent) == ("ImageRegistryDenied", True)


# --- keys ------------------------------------------------------------------------------------


async def test_keys_that_cannot_sign(cosign: Cosign, tmp_path: Path) -> None:
    made = await cosign.run("generate-key-pair")
    assert made.returncode == 0, made.stderr
    key = ec.generate_private_key(ec.SECP256R1())
    contents = {
        "is encrypted": (tmp_path / "cosign.key").read_bytes(),
        "is encrypted, ": private_pem(key, BestAvailableEncryption(b"secret")),
        "is not a private key in PEM": b"-----BEGIN PRIVATE KEY-----\nAAAA",
        "is not a private key in PEM; ": (tmp_path / "cosign.pub").read_bytes(),
        "is not an ECDSA key on P-256": private_pem(rsa.generate_private_key(65537, 2048)),
        "is not an ECDSA key on P-256; ": private_pem(ec.generate_private_key(ec.SECP384R1())),
        "cannot be read: No such file": None,
    }
    path = tmp_path / "key.pem"
    for words, content in contents.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BuildError, match=re.escape(words)) as caught:
            await KeyFile(path).sign(b"message")
        failure = caught.value.failure
        assert (failure.reason, failure.permanent) == ("SigningKeyInvalid", True)
        assert str(path) in failure.message


async def test_keys_that_cannot_be_trusted(ours: Pair, tmp_path: Path) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    block = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
    contents = {
        "holds no public key in PEM": b"ssh-ed25519 AAAA",
        "holds a private key": ours.public.read_bytes() + ours.private.read_bytes(),
        "holds a PUBLIC KEY that is not": block.encode(),
        "is not ECDSA": rsa_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "cannot be read: No such file": None,
    }
    path = tmp_path / "keys.pem"
    for words, content in contents.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            trusted_keys(path)


async def test_one_file_may_hold_several_keys(ours: Pair, others: Pair, tmp_path: Path) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(b"# of 2026\n" + ours.public.read_bytes() + others.public.read_bytes())
    found = [key.fingerprint for key in trusted_keys(path)]
    wanted = [trusted_keys(pair.public)[0].fingerprint for pair in (ours, others)]
    assert found == wanted
