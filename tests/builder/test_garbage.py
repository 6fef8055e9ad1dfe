"""What may go from a registry, and that nothing else does."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from modelops_operator.adapters.oci import Registry
from modelops_operator.builder.attestations import CYCLONEDX
from modelops_operator.builder.garbage import Stored, survey, unneeded
from modelops_operator.builder.image import Image, Repository, publish
from modelops_operator.builder.layers import Entry, Layer, write_layer
from modelops_operator.builder.referrers import Subject, attach, index_tag
from modelops_operator.cli.main import main

from tests.apiserver import Kubectl
from tests.registries.azure import AzureSite
from tests.registries.servers import RunningRegistry

pytestmark = pytest.mark.contract
PREFIX = "pruned"


def stored(version: str, *, model: str = "m", layers: str = "") -> Stored:
    return Stored(
        repository=model or "cache",
        digest=f"sha256:{model}{version}{layers}",
        tags=(version,),
        model=model,
        version=version,
        layers=frozenset(layers),
        size=1,
    )


def test_the_last_versions_of_each_model_stay_and_what_is_used() -> None:
    images = [stored(str(version)) for version in range(1, 13)]
    other = stored("1", model="n")
    used = {images[2].digest}
    gone = unneeded([*images, other], used, keep=3)
    assert {one.version for one in gone} == {"1", "2", "4", "5", "6", "7", "8", "9"}
    assert other not in gone
    assert other in unneeded([*images, other], used, keep=0)


def test_what_builds_remember_stays_while_an_image_is_made_of_it() -> None:
    image = stored("2", layers="abc")
    environment, layer = stored("", model="", layers="ab"), stored("", model="", layers="c")
    old = stored("", model="", layers="ax")
    assert unneeded([image, environment, layer, old], (), keep=1) == [old]
    assert set(unneeded([image, environment, layer, old], (), keep=0)) == {
        image,
        environment,
        layer,
        old,
    }


class Shelf:
    """Images of one model in a registry."""

    def __init__(self, registry: RunningRegistry | AzureSite, folder: Path, *options: str) -> None:
        self.registry = registry
        self.options = options
        """How the command reaches the registry."""
        self.folder = folder
        self.name = f"{PREFIX}/employment"
        self.digests = [asyncio.run(self.put(version)) for version in ("1", "2", "3")]

    async def put(self, version: str) -> str:
        """Push an image with a document attached, and one of somebody else's."""
        labels = {"modelops.dev/predictor": f"employment/{version}"}
        async with self.registry.connect() as client:
            repository = Repository(client, self.name)
            layer = await self.layer(client, version)
            image = Image(layers=(layer,), config={"Labels": labels}, architecture="amd64")
            tag = f"{version}-tag"
            digest = await publish(repository, image, tag=tag, annotations=labels)
            subject = Subject(digest=digest, size=len(image.manifest(labels)))
            await attach(repository, subject, CYCLONEDX, {"components": []})
            others = Image(layers=(layer,), config={}, architecture="amd64")
            await publish(repository, others, tag=f"others-{version}", annotations={})
            return digest

    async def layer(self, client: Registry, version: str) -> Layer:
        path = self.folder / version
        layer, blob = write_layer([Entry.of("version", version.encode())], path, content=version)
        await client.ensure(self.name, blob)
        return layer

    def tags(self) -> Sequence[str]:
        async def ask() -> Sequence[str]:
            async with self.registry.connect() as client:
                return await client.tags(self.name)

        return asyncio.run(ask())

    def has(self, version: str) -> bool:
        async def ask() -> bool:
            async with self.registry.connect() as client:
                return await client.has_manifest(self.name, version)

        return asyncio.run(ask())


@pytest.fixture
def shelf(start_registry: Any, tmp_path: Path) -> Shelf:
    return Shelf(start_registry(), tmp_path, "--insecure")


@pytest.fixture
def cluster(apiserver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubectl]:
    monkeypatch.setenv("KUBECONFIG", str(apiserver))
    kubectl = Kubectl(apiserver)
    yield kubectl
    kubectl("delete", "modeldeployments", "--all", "-n", "default")
    kubectl("delete", "modelimages", "--all", "-n", "default")


def use(cluster: Kubectl, reference: str) -> None:
    """Have a ModelDeployment say that an image serves it."""
    manifest = {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "employment", "namespace": "default"},
        "spec": {"models": {"predictor": {"name": "employment", "version": "1"}}},
    }
    cluster("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))
    status = {"observedGeneration": 1, "image": {"reference": reference, "lock": "sha256:0"}}
    cluster(
        *("patch", "modeldeployment", "employment", "-n", "default", "--subresource=status"),
        *("--type=merge", "-p", json.dumps({"status": status})),
    )


def prune(shelf: Shelf, *options: str) -> Result:
    arguments = ["--registry", shelf.registry.host, *shelf.options, "--prefix", PREFIX, *options]
    return CliRunner().invoke(main, ["image", "prune", *arguments], catch_exceptions=False)


def test_only_images_of_ours_that_nobody_uses_are_deleted(shelf: Shelf, cluster: Kubectl) -> None:
    oldest, middle, newest = shelf.digests
    use(cluster, f"{shelf.registry.host}/{shelf.name}@{oldest}")
    before = shelf.tags()
    told = prune(shelf, "--keep", "1", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "employment/2" in told.output
    assert "1 images" in told.output
    assert "employment/1" not in told.output
    assert sorted(shelf.tags()) == sorted(before)
    asked = prune(shelf, "--keep", "1")  # nobody answers
    assert asked.exit_code == 1
    assert sorted(shelf.tags()) == sorted(before)

    done = prune(shelf, "--keep", "1", "--yes")
    assert done.exit_code == 0, done.output
    assert [shelf.has(digest) for digest in (oldest, middle, newest)] == [True, False, True]
    assert set(before) - set(shelf.tags()) == {"2-tag", index_tag(middle)}
    assert "0 images" in prune(shelf, "--keep", "1", "--yes").output


def test_nothing_is_deleted_while_a_cluster_does_not_answer(
    shelf: Shelf, cluster: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shelf.tags()
    for options in (["--context", "nowhere"], ["--context", "test", "--context", "nowhere"]):
        done = prune(shelf, "--keep", "0", "--yes", *options)
        assert done.exit_code == 1
        assert "context nowhere does not tell which images are in use" in done.output
    config = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:9", cluster.kubeconfig.read_text())
    (tmp_path / "kubeconfig").write_text(config)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    done = prune(shelf, "--keep", "0", "--yes")
    assert done.exit_code == 1
    assert "nothing is deleted unless every cluster" in done.output
    assert sorted(shelf.tags()) == sorted(before)


def test_nothing_is_deleted_while_an_image_is_being_built(shelf: Shelf, cluster: Kubectl) -> None:
    image = {
        "apiVersion": "modelops.dev/v1alpha1",
        "kind": "ModelImage",
        "metadata": {"name": "underway", "namespace": "default"},
        "spec": {
            "models": [{"role": "predictor", "name": "m", "version": "1", "source": "s3://m"}],
            "trackingUri": "http://mlflow.test",
            "repository": "registry.test/m",
            "runtime": {"version": "0.1.0"},
            "python": "3.11",
            "platforms": ["linux/amd64"],
            "base": f"registry.test/base@sha256:{'0' * 64}",
        },
    }
    cluster("apply", "--server-side", "-f", "-", stdin=json.dumps(image))
    done = prune(shelf, "--keep", "0", "--yes")
    assert done.exit_code == 1
    assert "ModelImage underway is being built" in done.output
    assert all(shelf.has(digest) for digest in shelf.digests)


def test_a_registry_that_forbids_deletion_is_told_and_the_rest_goes_on(
    start_registry: Any, tmp_path: Path, cluster: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cluster
    monkeypatch.setenv("REGISTRY_STORAGE_DELETE_ENABLED", "false")
    shelf = Shelf(start_registry(), tmp_path, "--insecure")
    done = prune(shelf, "--keep", "0", "--yes")
    assert done.exit_code == 1
    assert done.output.count("not deleted: registry") == 3
    assert "3 could not be deleted" in done.output


def test_a_real_registry_is_surveyed_page_by_page(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelops_operator.adapters.oci._PAGE", 1)

    async def ask() -> Sequence[Stored]:
        async with shelf.registry.connect() as client:
            elsewhere = Image(layers=(), config={}, architecture="amd64")
            await publish(Repository(client, "elsewhere/it"), elsewhere, tag="1", annotations={})
            assert "elsewhere/it" in await client.repositories()
            return await survey(client, PREFIX)

    found = asyncio.run(ask())
    assert sorted((one.version, one.digest) for one in found) == [
        (str(number), digest) for number, digest in enumerate(shelf.digests, 1)
    ]


# --- Azure -----------------------------------------------------------------------------------


@pytest.fixture
async def azure_shelf(azure: AzureSite, tmp_path: Path) -> Shelf:
    options = ("--auth", "ACR", "--ca-bundle", str(azure.certificate.path))
    return await asyncio.to_thread(Shelf, azure, tmp_path, *options)


@pytest.mark.anyio
async def test_azures_locks_are_set_kept_and_taken_back(
    azure_shelf: Shelf, azure: AzureSite, cluster: Kubectl
) -> None:
    shelf, (oldest, middle, newest) = azure_shelf, azure_shelf.digests
    use(cluster, f"{shelf.registry.host}/{shelf.name}@{oldest}")
    locks = azure.azure.locks
    locks[f"{shelf.name}:2-tag"] = {"writeEnabled": False}

    done = await asyncio.to_thread(prune, shelf, "--keep", "0", "--yes", "--lock")
    assert done.exit_code == 0, done.output
    assert "2-tag  employment/2  0.0 MB  stays: it is locked" in done.output
    assert [await has(shelf, one) for one in (oldest, middle, newest)] == [True, True, False]
    assert locks[f"{shelf.name}@{oldest}"] == {"deleteEnabled": False}
    assert azure.proxy.count("GET", "/acr/v1/"), "listed in Azure's own way"

    cluster("delete", "modeldeployments", "--all", "-n", "default")
    done = await asyncio.to_thread(prune, shelf, "--keep", "0", "--yes", "--unlock")
    assert done.exit_code == 1
    assert [await has(shelf, one) for one in (oldest, middle)] == [False, True]
    assert "disallowed on this registry" in done.output


@pytest.mark.anyio
async def test_an_identity_that_may_not_list_is_told_the_role(
    azure_shelf: Shelf, azure: AzureSite, cluster: Kubectl
) -> None:
    del cluster
    azure.azure.actions = frozenset({"pull", "push"})
    done = await asyncio.to_thread(prune, azure_shelf, "--dry-run")
    assert done.exit_code == 1
    assert "Container Registry Repository Catalog Lister" in done.output


def test_only_azure_has_locks(shelf: Shelf, cluster: Kubectl) -> None:
    del cluster
    done = prune(shelf, "--yes", "--lock")
    assert done.exit_code == 2
    assert "--auth ACR" in done.output


async def has(shelf: Shelf, digest: str) -> bool:
    return await asyncio.to_thread(shelf.has, digest)
