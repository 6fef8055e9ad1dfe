"""The whole operator where images must be signed: a real API server, MLflow and registry."""

import asyncio
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.oci import Registry
from modelops_operator.builder.image import Repository
from modelops_operator.builder.signing import KeyFile, sign

from tests.apiserver import Kubectl
from tests.builder.cosign import Pair
from tests.nursery import Nursery
from tests.registries.servers import RunningRegistry
from tests.shell.operating import Process, World, configuration, eventually, running

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def operator(
    *,
    nursery: Nursery,
    system: Path,
    tracking_uri: str,
    registry: RunningRegistry,
    pair: Pair,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Process]:
    Kubectl(system)("-n", "modelops-system", "delete", "modelimages", "--all")
    config: dict[str, Any] = configuration(tracking_uri) | {
        "registry": {"host": registry.host, "insecure": True},
        "verification": {"mode": "Enforce", "keys": str(pair.public)},
    }
    process = Process(nursery, system, config, tmp_path_factory.mktemp("operator"))
    with running(process):
        yield process
        assert process.end() == 0
    assert "crashed" not in process.log()


def sign_image(running_registry: RunningRegistry, name: str, key: Path) -> str:
    """Sign an image that nobody needs to have pushed."""
    digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"

    async def main() -> None:
        async with Registry(running_registry.host, insecure=True) as client:
            await sign(Repository(client, name), digest, [], KeyFile(key))

    asyncio.run(main())
    return f"{running_registry.host}/{name}@{digest}"


@pytest.mark.usefixtures("operator")
def test_only_a_signed_image_is_rolled_out(
    world: World, registry: RunningRegistry, pair: Pair, tmp_path: Path
) -> None:
    stranger = Pair.make(tmp_path)
    digest = "0" * 64
    for name, reference in {
        "signed": sign_image(registry, "t/signed", pair.private),
        "strange": sign_image(registry, "t/strange", stranger.private),
        "bare": f"{registry.host}/t/bare@sha256:{digest}",
    }.items():
        world.register(name)
        world.deployment(name)
        world.build(name, reference=reference)

    world.roll_out("signed")
    eventually(lambda: world.condition("signed", "Ready").get("status") == "True")
    assert world.condition("signed", "ImageVerified")["status"] == "True"
    for name, reason in {"strange": "SignatureUntrusted", "bare": "SignatureMissing"}.items():
        eventually(partial(world.condition, name, "Stalled"))
        found = world.condition(name, "ImageVerified")
        assert (found["status"], found["reason"]) == ("False", reason)
        assert world.get("deployment", name) is None
