"""What every registry must do for the builder: three real ones, one of them asking for tokens."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.oci import INDEX, Blob, sha256
from modelops_operator.adapters.registry_credentials import basic
from modelops_operator.adapters.registry_errors import RegistryError
from modelops_operator.builder.image import Image, Repository, publish
from modelops_operator.builder.layers import Entry, write_layer
from modelops_operator.builder.referrers import Subject, attach

from tests.registries.proxy import serving
from tests.registries.tokens import (
    PASSWORD,
    USER,
    Certificate,
    TokenServer,
    registry_settings,
)

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

BILL, ORIGIN = "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"


async def test_a_blob_goes_up_in_pieces_and_comes_back(each_registry: Any, tmp_path: Path) -> None:
    content = os.urandom(250_000)
    path = tmp_path / "blob"
    path.write_bytes(content)
    blob = Blob(digest=sha256(content), size=len(content), content=path)
    async with each_registry.connect(chunk=100_000) as client:
        await client.push("t/pieces", blob)
        assert not await client.ensure("t/pieces", blob)
        await client.download("t/pieces", blob.digest, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


async def test_an_image_of_a_mounted_layer_is_found_by_its_tag(
    each_registry: Any, tmp_path: Path
) -> None:
    layer, blob = write_layer([Entry.of("a", os.urandom(99))], tmp_path / "layer", content="a")
    image = Image(layers=(layer,), config={}, architecture="amd64")
    async with each_registry.connect() as client:
        await client.push("t/cache", blob)
        # go-containerregistry's has each blob in all repositories, and answers with an upload.
        await client.mount("t/image", layer.digest, "t/cache")
        assert await client.has_blob("t/image", layer.digest)
        digest = await publish(Repository(client, "t/image"), image, tag="one", annotations={})
        found = await client.manifest("t/image", "one")
        assert (found.digest, found.content) == (digest, image.manifest({}))


@pytest.mark.parametrize("name", ["registry", "distribution"])
async def test_attached_documents_are_listed_under_a_tag(
    name: str, request: pytest.FixtureRequest
) -> None:
    running = request.getfixturevalue(name)
    subject = Subject(digest=sha256(os.urandom(9)), size=9)
    async with running.connect() as client:
        assert await client.referrers("t/attached", subject.digest) is None
        repository = Repository(client, "t/attached")
        attached = {
            await attach(repository, subject, BILL, {"a": 1}): BILL,
            await attach(repository, subject, ORIGIN, {"b": 2}): ORIGIN,
        }
        index = await client.manifest("t/attached", subject.tag)
    assert index.media_type == INDEX
    listed = {each["digest"]: each["artifactType"] for each in index.parsed()["manifests"]}
    assert listed == attached


async def test_attached_documents_are_found_by_the_referrers_api(referrers: Any) -> None:
    subject = Subject(digest=sha256(os.urandom(9)), size=9)
    async with referrers.connect() as client:
        repository = Repository(client, "t/attached")
        attached = {
            await attach(repository, subject, BILL, {"a": 1}): BILL,
            await attach(repository, subject, ORIGIN, {"b": 2}): ORIGIN,
        }
        assert not await client.has_manifest("t/attached", subject.tag)
        # Its own answer has the type of the configuration for `artifactType`.
        types = {
            digest: (await client.manifest("t/attached", digest)).parsed()["artifactType"]
            for digest in attached
        }
        listed = await client.referrers("t/attached", subject.digest)
    assert {each["digest"] for each in listed} == attached.keys()
    assert types == attached


# --- distribution 3 with tokens --------------------------------------------------------------


@pytest.fixture
async def guarded_distribution(
    start_registry: Any, tmp_path: Path
) -> AsyncIterator[tuple[Any, TokenServer]]:
    from tests.apiserver import program

    certificate = Certificate(tmp_path)
    tokens = TokenServer(certificate)
    async with serving(tokens.answer) as origin:
        settings = registry_settings(f"{origin}/token", certificate)
        yield await asyncio.to_thread(start_registry, settings, program("distribution")), tokens


async def test_distribution_takes_our_tokens(guarded_distribution: Any) -> None:
    running, tokens = guarded_distribution
    blob, large = Blob.of(os.urandom(99)), Blob.of(os.urandom(2500))
    async with running.connect(
        credentials=basic(running.host, USER, PASSWORD), chunk=999
    ) as client:
        await client.push("a/source", blob)
        await client.push("a/source", large)
        assert await client.mount("a/target", blob.digest, "a/source")
        assert await client.blob("a/target", blob.digest) == blob.content
    assert tokens.asked == [
        ["repository:a/source:pull,push"],
        ["repository:a/target:pull,push", "repository:a/source:pull"],
        ["repository:a/target:pull"],
    ]


async def test_distribution_takes_no_tokens_that_are_over(guarded_distribution: Any) -> None:
    running, tokens = guarded_distribution
    tokens.valid = False
    async with running.connect(credentials=basic(running.host, USER, PASSWORD)) as client:
        with pytest.raises(RegistryError, match=r"credentials of .* are right") as caught:
            await client.push("a/source", Blob.of(b"a"))
    assert caught.value.failure.permanent
