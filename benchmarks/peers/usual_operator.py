"""The operator of ModelDeployments as it is usually written with kopf: handlers and a timer.

Its children come from the same functions as ours, and it speaks to the API server through the same
client, so that what differs is how the two are driven. It is cheaper than most: what the model
registry and the images say is remembered, and its timer reads nothing but the Deployment.

    python -m benchmarks.peers.usual_operator NAMESPACE
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import kopf
from modelops_operator.adapters.kubernetes import CHILDREN, MODEL_IMAGES, Cluster
from modelops_operator.adapters.mlflow import MlflowRegistry
from modelops_operator.api.conditions import Condition, ConditionType, merge_conditions
from modelops_operator.api.config import OperatorConfig, configured_path, load
from modelops_operator.api.facts import ModelVersion, Role
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core import children
from modelops_operator.core.availability import Rollout
from modelops_operator.core.image import built_release, wanted_image
from modelops_operator.core.owner import Owner
from modelops_operator.core.pod_template import Settings, generated
from modelops_operator.core.release import Release
from modelops_operator.core.resolution import released_models
from modelops_operator.shell.watch import log_in

INTERVAL: Final = 30.0
"""Seconds between two looks at an object."""
GROUP: Final = ("modelops.dev", "v1alpha1", "modeldeployments")
SETTINGS: Final = Settings(resources={}, window=timedelta(minutes=5))


def manifests(owner: Owner, release: Release, replicas: int) -> Sequence[Mapping[str, Any]]:
    """Give the children of an object without any settings, as our operator makes them."""
    pods = generated(owner, release, SETTINGS)
    return (*children.companions(owner), children.deployment(owner, release, pods, replicas))


class Models:
    """Finds the release that a spec asks for; answers are remembered between two looks."""

    def __init__(self, config: OperatorConfig, cluster: Cluster) -> None:
        self._config = config
        self._cluster = cluster
        self._registry = MlflowRegistry(config.mlflow.tracking_uri)
        self._known: dict[str, tuple[float, Release | None]] = {}
        self._lock = asyncio.Lock()

    async def release(self, desired: ModelDeployment) -> Release | None:
        """Give the release; None while its image is not built."""
        references = desired.spec.models.by_role()
        key = repr(references)
        async with self._lock:
            asked, known = self._known.get(key, (0.0, None))
            if known is None or time.monotonic() - asked > INTERVAL:
                known = await self._find(references)
                self._known[key] = (time.monotonic(), known)
        return known

    async def _find(self, references: Mapping[Role, Any]) -> Release | None:
        versions: dict[Role, ModelVersion] = {}
        for role, reference in references.items():
            aliases = await self._registry.model(reference.name)
            versions[role] = await self._registry.version(reference.name, aliases[reference.alias])
        image = wanted_image(versions, rebuild=None, config=self._config)
        live = await self._cluster.get(
            MODEL_IMAGES, self._config.operator.namespace, image["metadata"]["name"]
        )
        return built_release(image, released_models(references, versions), live)


async def operate(namespace: str) -> None:
    """Run for ever."""
    config, registry = load(configured_path()), kopf.OperatorRegistry()
    cluster = await Cluster.connect()
    models = Models(config, cluster)
    on = partial(_decorate, registry)

    async def deploy(body: Any, patch: Any, **_: Any) -> None:
        desired = ModelDeployment.model_validate(dict(body))
        release = await models.release(desired)
        if release is None:
            raise kopf.TemporaryError("the image is being built", delay=5)
        metadata = desired.metadata
        owner = Owner(name=metadata.name, namespace=metadata.namespace, uid=metadata.uid)
        for manifest in manifests(owner, release, desired.spec.serving.replicas or 1):
            await cluster.apply(CHILDREN[manifest["kind"]], manifest)
        patch.status.update(_status(body, Rollout(conditions={})))

    async def look(body: Any, patch: Any, **_: Any) -> None:
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        live = await cluster.get(CHILDREN["Deployment"], *key)
        status = _status(body, Rollout.of(live))
        if any(body.get("status", {}).get(name) != value for name, value in status.items()):
            patch.status.update(status)

    async def leave(**_: Any) -> None:
        """Let the garbage collector do the rest."""

    for handler in (kopf.on.create, kopf.on.update, kopf.on.resume):
        on(handler, id="deploy")(deploy)
    on(kopf.on.delete, id="leave")(leave)
    on(kopf.timer, id="look", interval=INTERVAL)(look)
    kopf.on.login(registry=registry, id="login")(log_in)
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    await kopf.operator(registry=registry, settings=settings, namespace=namespace, standalone=True)


def _decorate(registry: Any, handler: Any, **options: Any) -> Any:
    return handler(*GROUP, registry=registry, **options)


def _status(body: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
    generation = body["metadata"]["generation"]
    told = f"{rollout.available} of {rollout.wanted} replicas available"
    ready = Condition(
        ConditionType.READY, "True" if rollout.complete else "False", "Replicas", told
    )
    previous = (body.get("status") or {}).get("conditions") or ()
    return {
        "observedGeneration": generation,
        "replicas": rollout.total,
        "readyReplicas": rollout.ready,
        "conditions": merge_conditions(
            previous, [ready], generation=generation, now=datetime.now(UTC)
        ),
    }


if __name__ == "__main__":
    asyncio.run(operate(sys.argv[1]))
