"""`modelops-operator`: watches ModelDeployments and makes the cluster serve them."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from modelops_operator.adapters.image_signatures import CosignSignatures, TrustedKey, trusted_keys
from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    PODS,
    Cluster,
)
from modelops_operator.adapters.mlflow import MlflowRegistry
from modelops_operator.adapters.registries import Registries
from modelops_operator.adapters.webhook import connected
from modelops_operator.api.config import OperatorConfig, VerificationConfig, VerificationMode
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.controller import Controller, Listener
from modelops_operator.shell.endpoints import endpoints
from modelops_operator.shell.execute import Executor
from modelops_operator.shell.fleet import Fleet
from modelops_operator.shell.follower import ModelFollower
from modelops_operator.shell.gather import Gatherer
from modelops_operator.shell.leader import election
from modelops_operator.shell.monitoring import Monitor
from modelops_operator.shell.process import Stop, after, run_process, run_until_stopped
from modelops_operator.shell.queue import TokenBucket, WorkQueue
from modelops_operator.shell.signatures import Signatures
from modelops_operator.shell.sweep import Kind, Sweeper
from modelops_operator.shell.telemetry import telemetry_source
from modelops_operator.shell.unwanted import UnwantedImages
from modelops_operator.shell.watch import Watcher
from modelops_operator.shell.webhook import Webhook

MANAGED: Final = "app.kubernetes.io/managed-by=modelops-operator"
WRITES_PER_SECOND: Final = 1000.0
WRITES_AT_ONCE: Final = 1000
"""More than one replica of the API server takes, which keeps order among its clients by itself."""
VERIFIERS: Final = 4
"""Images whose signatures are looked for at the same time."""


def main() -> None:
    """Run until told to stop."""
    run_process(operate)


async def operate(config: OperatorConfig) -> None:
    """Put the operator together and run it until SIGTERM."""
    async with AsyncExitStack() as stack:
        cluster = await Cluster.connect()
        stack.push_async_callback(cluster.close)
        registry = MlflowRegistry(
            # Where there is one base image only, there is nothing to choose.
            config.mlflow.tracking_uri,
            pythons=len(config.builder.bases) > 1,
        )
        stack.callback(registry.close)
        source = await stack.enter_async_context(telemetry_source(config.monitoring))

        registries = await stack.enter_async_context(
            Registries(config.registry, config.builder.ca_bundle)
        )
        keys = _trusted_keys(config.verification)

        stop, cache, fleet, queue = Stop(), Cache(), Fleet(), WorkQueue("deployments")
        listener = Listener(cache, fleet, queue)
        leadership = election(config, cluster)
        executor = Executor(
            cluster, cache, leadership, TokenBucket(rate=WRITES_PER_SECOND, burst=WRITES_AT_ONCE)
        )
        follower = ModelFollower(
            registry,
            interval=config.mlflow.poll_interval,
            wanted=fleet.models,
            moved=listener.moved,
        )
        webhook = None
        if config.monitoring.webhook is not None:
            receiver = await stack.enter_async_context(connected(config.monitoring.webhook))
            webhook = Webhook(receiver, cache, leadership)
        signatures = Signatures(CosignSignatures(registries, keys), answered=listener.refresh)
        controller = Controller(
            config=config,
            cluster=cluster,
            cache=cache,
            queue=queue,
            fleet=fleet,
            follower=follower,
            signatures=signatures,
            gatherer=Gatherer(cache, cluster, images=config.operator.namespace),
            executor=executor,
            leadership=leadership,
            webhook=webhook,
        )
        kinds = watched(config)
        sweeper = Sweeper(cluster, cache, kinds, listener.changed)
        watcher = Watcher(cache, kinds, sweeper, listener.changed)
        unwanted = UnwantedImages(config, cluster, cache, follower, executor)
        monitor = Monitor(controller, source, registry)

        await stack.enter_async_context(
            endpoints(
                health_port=config.operator.health_port,
                metrics_port=config.operator.metrics_port,
                ready=sweeper.synced.is_set,
                # Who follows has a queue, too, and does not work on it.
                stuck=lambda: queue.stuck() if leadership.leading else 0.0,
            )
        )
        await run_until_stopped(
            stop,
            {
                **{
                    f"worker {number}": after(sweeper.synced, controller.work)
                    for number in range(config.operator.workers)
                },
                **{f"verifier {number}": signatures.run() for number in range(VERIFIERS)},
                "monitoring": after(sweeper.synced, monitor.run),
                **({} if webhook is None else {"webhook": after(sweeper.synced, webhook.run)}),
                # Ended when nothing is written any more, so that others take over at once.
                "leader election": leadership.run(),
                "registry": after(sweeper.synced, follower.run),
                "watches": after(sweeper.synced, watcher.run),
                "sweeps": sweeper.run(config.operator.sweep_interval, unwanted.delete),
            },
        )


def watched(config: OperatorConfig) -> Sequence[Kind]:
    """Give what is watched where the models are served, and the images in our own namespace."""
    namespaces = config.operator.namespaces or (None,)
    children = [Kind(resource, namespaces, MANAGED) for resource in (*CHILDREN.values(), PODS)]
    images = Kind(MODEL_IMAGES, (config.operator.namespace,))
    return (*children, images, Kind(MODEL_DEPLOYMENTS, namespaces))


def _trusted_keys(config: VerificationConfig) -> Sequence[TrustedKey]:
    """Read the keys whose signatures count. Raises ConfigError."""
    if config.mode is VerificationMode.DISABLED or config.keys is None:
        return ()
    return trusted_keys(config.keys)


if __name__ == "__main__":
    main()
