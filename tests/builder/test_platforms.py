"""One image for several platforms: a list, and in each image programs for that platform only."""

import asyncio
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.oci import INDEX, Reference
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.resources import ModelImageSpec
from modelops_operator.builder.build import BuiltImage
from modelops_operator.builder.garbage import survey
from modelops_operator.builder.image import Image, Repository, index, publish, read_image
from modelops_operator.builder.layers import Entry, write_layer

from tests.builder.conftest import Configure
from tests.builder.cosign import Cosign, Pair
from tests.builder.releases import build
from tests.registries.servers import RunningRegistry

pytestmark = pytest.mark.contract
MACHINES = {"amd64": 62, "arm64": 183}
"""What an ELF file says it is for, as <elf.h> has it."""


@pytest.fixture(scope="module")
def bases(registry: RunningRegistry, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base image for amd64 beside one for arm64, which holds one file: nothing runs here."""
    path = tmp_path_factory.mktemp("base") / "layer"

    async def push() -> str:
        reference = Reference.parse(base)
        async with registry.connect() as client:
            repository = Repository(client, reference.repository)
            known = await client.manifest(reference.repository, reference.version)
            assert known is not None
            native = await read_image(client, reference.repository, known.content)
            layer, blob = write_layer([Entry.of("etc/arm", b"64")], path, content="base")
            await client.push(repository.name, blob)
            foreign = Image(layers=(layer,), config={}, architecture="arm64")
            await publish(repository, foreign, tag="arm64", annotations={})
            content = index([(native, known.content), (foreign, foreign.manifest({}))], {})
            return await client.put_manifest(repository.name, "both", content, INDEX)

    return f"{base.partition('@')[0]}@{asyncio.run(push())}"


@pytest.fixture(scope="module")
def both(
    first: tuple[ModelImageSpec, BuiltImage], configuration: OperatorConfig, bases: str
) -> tuple[ModelImageSpec, BuiltImage]:
    """The first release of the builder's tests, for both platforms."""
    changes = {"platforms": ("linux/amd64", "linux/arm64"), "base": bases}
    changes["repository"] = first[0].repository.replace("/release-predictor", "/anywhere")
    spec = first[0].model_copy(update=changes)
    return spec, asyncio.run(build(configuration, spec))


def elf_machines(layer: Path) -> Counter[int]:
    """Count the ELF files in a layer by what they are for."""
    found: Counter[int] = Counter()
    with tarfile.open(layer) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            head = content.read(20) if content else b""
            if head.startswith(b"\x7fELF"):
                found[int.from_bytes(head[18:20], "little")] += 1
    return found


def test_each_platform_gets_an_image_of_its_own_programs(
    both: tuple[ModelImageSpec, BuiltImage], registry: RunningRegistry, tmp_path: Path
) -> None:
    repository = Reference.parse(both[1].reference).repository

    async def look() -> dict[str, tuple[list[str], Counter[int]]]:
        found = {}
        async with registry.connect() as client:
            listed = await client.manifest(repository, both[1].digest)
            assert listed is not None
            for entry in listed.parsed()["manifests"]:
                platform = entry["platform"]["architecture"]
                manifest = await client.manifest(repository, entry["digest"])
                assert manifest is not None
                image = await read_image(client, repository, manifest.content)
                assert image.architecture == platform
                machines: Counter[int] = Counter()
                for layer in image.layers[1:]:  # what is on the base image is ours
                    await client.download(repository, layer.digest, tmp_path / "layer")
                    machines += elf_machines(tmp_path / "layer")
                found[platform] = [layer.digest for layer in image.layers], machines
        return found

    found = asyncio.run(look())
    assert found.keys() == MACHINES.keys()
    for platform, (_, machines) in found.items():
        assert machines.keys() == {MACHINES[platform]}
        assert machines.total() > 20
    amd64, arm64 = (set(layers) for layers, _ in found.values())
    # Models, the Bento and what is Python alone are the same bytes, sent once.
    assert {layers[-1] for layers, _ in found.values()} < amd64 & arm64
    assert len(amd64 & arm64) >= 4


def manifests(registry: RunningRegistry, built: BuiltImage) -> list[Any]:
    """Read a list of images, and each of them."""
    repository = Reference.parse(built.reference).repository

    async def read() -> list[Any]:
        async with registry.connect() as client:
            listed = await client.manifest(repository, built.digest)
            assert listed is not None
            found = [listed.parsed()]
            for entry in found[0]["manifests"]:
                manifest = await client.manifest(repository, entry["digest"])
                assert manifest is not None
                found.append(manifest.parsed())
            return found

    return asyncio.run(read())


def test_again_it_is_the_same_and_nothing_is_sent(
    both: tuple[ModelImageSpec, BuiltImage],
    configuration: OperatorConfig,
    registry: RunningRegistry,
) -> None:
    again = asyncio.run(build(configuration, both[0]))
    assert manifests(registry, again) == manifests(registry, both[1])  # tells which layer it is
    assert again == both[1]
    assert again.pushed == 0


def test_the_images_of_a_list_count_as_one(
    both: tuple[ModelImageSpec, BuiltImage], registry: RunningRegistry
) -> None:
    async def look() -> Any:
        async with registry.connect() as client:
            return await survey(client, "modelops")

    (found,) = [each for each in asyncio.run(look()) if each.digest == both[1].digest]
    assert (found.model, found.version) == ("release_predictor", "1")
    assert len(found.variants) == 2
    assert found.layers


def test_cosign_accepts_the_list(
    both: tuple[ModelImageSpec, BuiltImage], configure: Configure, ours: Pair, cosign: Cosign
) -> None:
    signing = {"signing": {"key": str(ours.private)}}
    config = OperatorConfig.model_validate(configure(builder=signing))

    async def sign_and_verify() -> list[subprocess.CompletedProcess[str]]:
        assert await build(config, both[0]) == both[1]
        return await cosign.verify(ours.public, both[1].reference)

    for done in asyncio.run(sign_and_verify()):
        assert done.returncode == 0, done.stderr
