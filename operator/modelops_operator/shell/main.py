"""The operator's process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    PODS,
    Cluster,
)
from modelops_operator.adapters.mlflow import MlflowRegistry
from modelops_operator.adapters.pod_logs import PodLogs
from modelops_operator.api.config import OperatorConfig
from modelops_operator.shell import endpoints, process
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.controller import Controller
from modelops_operator.shell.execute import Executor
from modelops_operator.shell.gather import Gatherer
from modelops_operator.shell.leader import Always, Leader
from modelops_operator.shell.models import ModelFollower
from modelops_operator.shell.monitoring import Monitor
from modelops_operator.shell.queue import TokenBucket, WorkQueue
from modelops_operator.shell.sweep import MANAGED, Sweeper

WRITES_PER_SECOND = 50.0
WRITES_AT_ONCE = 100


def main() -> None:
    """Run `modelops-operator`."""
    process.main(run)


async def run(config: OperatorConfig) -> None:
    """Run until a signal."""
    cluster, logs = await Cluster.connect(), await Cluster.connect()
    registry = MlflowRegistry(config.mlflow.tracking_uri)
    leader = _leader(cluster, config)
    cache = Cache()
    controller = Controller(
        config=config,
        cluster=cluster,
        cache=cache,
        queue=WorkQueue("modeldeployments"),
        gatherer=Gatherer(cache, cluster),
        executor=Executor(
            cluster, cache, leader, TokenBucket(rate=WRITES_PER_SECOND, burst=WRITES_AT_ONCE)
        ),
        leader=leader,
    )
    controller.follower = ModelFollower(
        registry, interval=config.mlflow.poll_interval, moved=controller.moved
    )
    source = PodLogs(logs.client)
    sweeper = _sweeper(controller)
    runners = await endpoints.serve(
        health_port=config.operator.health_port,
        metrics_port=config.operator.metrics_port,
        ready=sweeper.synced.is_set,
        busy_since=controller.busy_since,
    )
    try:
        await process.until_first(
            _watch(controller, sweeper),
            sweeper.run(config.operator.sweep_interval, controller.delete_unwanted_images),
            leader.run() if isinstance(leader, Leader) else asyncio.Event().wait(),
            controller.follower.run(),
            _after(sweeper, Monitor(controller, source, registry).run),
            *(_after(sweeper, controller.work) for _ in range(config.operator.workers)),
        )
    finally:
        await source.close()
        await cluster.close()
        await logs.close()
        registry.close()
        for runner in runners:
            await runner.cleanup()


def _leader(cluster: Cluster, config: OperatorConfig) -> Leader | Always:
    election = config.operator.leader_election
    if not election.enabled:
        return Always()
    return Leader(
        cluster,
        namespace=config.operator.namespace,
        lease=election.lease_name,
        identity=process.identity(),
    )


def _sweeper(controller: Controller) -> Sweeper:
    served = controller.config.operator.namespaces or (None,)
    own = (controller.config.operator.namespace,)
    kinds = [
        (MODEL_IMAGES, own, ""),
        (PODS, served, MANAGED),
        *((resource, served, MANAGED) for resource in CHILDREN.values()),
        # Last: when they are looked at, all that belongs to them is known.
        (MODEL_DEPLOYMENTS, served, ""),
    ]
    return Sweeper(controller.cluster, controller.cache, kinds, controller.changed)


async def _watch(controller: Controller, sweeper: Sweeper) -> None:
    """Watch with kopf, once the first sweep proved that all kinds are served."""
    await sweeper.synced.wait()
    kinds = [
        (MODEL_DEPLOYMENTS, False),
        (MODEL_IMAGES, False),
        (PODS, True),
        *((resource, True) for resource in CHILDREN.values()),
    ]
    registry = process.watches(controller.cache, kinds, controller.changed)
    namespaces = controller.config.operator.namespaces
    own = controller.config.operator.namespace
    await process.kopf_operator(registry, sorted({*namespaces, own}) if namespaces else ())


async def _after(sweeper: Sweeper, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await sweeper.synced.wait()
    await loop()


if __name__ == "__main__":
    main()
