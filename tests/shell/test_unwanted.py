"""Which ModelImages go, in a real API server."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from modelops_operator.adapters.kubernetes import MODEL_DEPLOYMENTS, MODEL_IMAGES, Cluster
from modelops_operator.api.config import OperatorConfig
from modelops_operator.api.facts import Failure, ModelVersion, Role
from modelops_operator.api.reasons import Reason
from modelops_operator.api.resources import ModelRef
from modelops_operator.core.image import wanted_image
from modelops_operator.shell import unwanted
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.execute import Executor
from modelops_operator.shell.leader import Always
from modelops_operator.shell.queue import TokenBucket
from modelops_operator.shell.unwanted import UnwantedImages
from modelops_runtime.bento import ServingRuntime

from tests.apiserver import Kubectl
from tests.shell.operating import DIGEST, configuration

pytestmark = pytest.mark.contract

CONFIG = OperatorConfig.model_validate(configuration("http://mlflow.test"))
SYSTEM = CONFIG.operator.namespace


class Follower:
    """Resolves as the test says: name to version; what is not there cannot be resolved."""

    def __init__(self, **versions: str) -> None:
        self.versions = versions

    async def resolve(self, references: dict[Role, ModelRef], *, fresh: bool) -> dict[Role, Any]:
        assert not fresh
        return {role: self._one(model) for role, model in references.items()}

    def _one(self, model: ModelRef) -> ModelVersion | Failure:
        if model.name not in self.versions:
            return Failure(reason=Reason.MODEL_NOT_FOUND, message="", permanent=True)
        return version(model.name, self.versions[model.name])


def version(name: str, number: str) -> ModelVersion:
    return ModelVersion(name=name, version=number, run_id="r", source="s3://m")


def image(name: str, number: str = "1", **wishes: Any) -> dict[str, Any]:
    versions = {Role.PREDICTOR: version(name, number)}
    return wanted_image(versions, config=CONFIG, **({"rebuild": None} | wishes))


def deployment(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": MODEL_DEPLOYMENTS.api_version,
        "kind": MODEL_DEPLOYMENTS.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"models": {"predictor": {"name": name, "alias": "candidate"}}},
    }


def names(*images: dict[str, Any]) -> set[str]:
    return {each["metadata"]["name"] for each in images}


async def _left(follower: Follower) -> set[str]:
    """Look for unwanted images once; give the names of those that are left."""
    cluster, cache = await Cluster.connect(), Cache()
    try:
        async for live in cluster.list(MODEL_IMAGES, SYSTEM):
            cache.put(live)
        executor = Executor(cluster, cache, Always(), TokenBucket(rate=100, burst=100))
        await UnwantedImages(CONFIG, cluster, cache, follower, executor).delete()  # type: ignore[arg-type]
        return {live["metadata"]["name"] async for live in cluster.list(MODEL_IMAGES, SYSTEM)}
    finally:
        await cluster.close()


async def _create(*manifests: dict[str, Any]) -> None:
    cluster = await Cluster.connect()
    kinds = {resource.kind: resource for resource in (MODEL_DEPLOYMENTS, MODEL_IMAGES)}
    for manifest in manifests:
        namespace = manifest["metadata"]["namespace"]
        await cluster.create(kinds[manifest["kind"]], namespace, manifest)
    await cluster.close()


@pytest.fixture
def namespace(system: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KUBECONFIG", str(system))
    monkeypatch.setattr(unwanted, "YOUNG", timedelta(seconds=-2))
    kubectl = Kubectl(system)
    # An operator that had just ended may have made one more.
    kubectl("-n", SYSTEM, "delete", "modelimages", "--all")
    yield "default"
    kubectl("-n", SYSTEM, "delete", "modelimages", "--all")
    kubectl("-n", "default", "delete", "modeldeployments", "--all")


def test_what_nobody_asks_for_goes_and_the_rest_stays(namespace: str) -> None:
    wanted, former, others = image("a", "2"), image("a", "1"), image("b")
    asyncio.run(_create(deployment("a", namespace), wanted, former, others))
    assert asyncio.run(_left(Follower(a="2"))) == names(wanted)


def test_what_still_runs_stays(namespace: str, system: Path) -> None:
    running, wanted = image("a", "1"), image("a", "2")
    asyncio.run(_create(deployment("a", namespace), running, wanted))
    kubectl = Kubectl(system)
    reference = f"registry.test/a@{DIGEST}"
    merge = ("--subresource=status", "--type=merge", "-p")
    built = json.dumps({"status": {"image": {"reference": reference, "digest": "d"}}})
    place = ("-n", SYSTEM, "patch", "modelimage", *names(running))
    kubectl(*place, *merge, built)
    runs = json.dumps({"status": {"image": {"reference": reference}}})
    kubectl("-n", namespace, "patch", "modeldeployment", "a", *merge, runs)
    assert asyncio.run(_left(Follower(a="2"))) == names(running, wanted)


def test_where_nobody_knows_what_is_wanted_all_of_the_model_stays(namespace: str) -> None:
    some, more, others = image("a", "1"), image("a", "2"), image("b")
    asyncio.run(_create(deployment("a", namespace), some, more, others))
    assert asyncio.run(_left(Follower())) == names(some, more)


def test_an_image_that_was_asked_for_anew_stays(namespace: str) -> None:
    once, anew, other = image("a"), image("a", rebuild="now"), image("a", rebuild="then")
    manifest = deployment("a", namespace)
    manifest["metadata"]["annotations"] = {"modelops.dev/rebuild": "now"}
    asyncio.run(_create(manifest, once, anew, other))
    assert asyncio.run(_left(Follower(a="1"))) == names(once, anew)


def test_an_image_for_the_runtime_that_is_asked_for_stays(namespace: str) -> None:
    auto, asked = image("a"), image("a", profile=ServingRuntime.PYFUNC)
    manifest = deployment("a", namespace)
    manifest["spec"]["serving"] = {"runtime": "Pyfunc"}
    asyncio.run(_create(manifest, auto, asked))
    assert asyncio.run(_left(Follower(a="1"))) == names(asked)


def test_a_young_image_is_not_judged(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwanted, "YOUNG", timedelta(minutes=2))
    young = image("a")
    asyncio.run(_create(young))
    assert namespace
    assert asyncio.run(_left(Follower())) == names(young)
