"""`modelops-builder`: builds the images that ModelImages ask for, and pushes them."""

import asyncio
from contextlib import AsyncExitStack

from modelops_operator.adapters.kubernetes import MODEL_IMAGES, Cluster
from modelops_operator.api.config import OperatorConfig
from modelops_operator.builder.build import Builder
from modelops_operator.builder.models import warm_up
from modelops_operator.shell.builds import LONGEST_BUILD, Builds
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.endpoints import STUCK, endpoints
from modelops_operator.shell.leader import election
from modelops_operator.shell.process import Stop, after, run_process, run_until_stopped
from modelops_operator.shell.queue import WorkQueue
from modelops_operator.shell.sweep import Kind, Sweeper
from modelops_operator.shell.watch import Watcher


def main() -> None:
    """Run until told to stop."""
    run_process(build)


async def build(config: OperatorConfig) -> None:
    """Put the builder together and run it until SIGTERM."""
    warm_up()
    async with AsyncExitStack() as stack:
        cluster = await Cluster.connect()
        stack.push_async_callback(cluster.close)
        builder = await stack.enter_async_context(Builder(config))
        stop, cache, queue = Stop(), Cache(), WorkQueue("images")
        leadership = election(config, cluster, suffix="-builder")
        builds = Builds(
            cluster=cluster, cache=cache, queue=queue, builder=builder, leadership=leadership
        )
        kinds = [Kind(MODEL_IMAGES, (config.operator.namespace,))]
        sweeper = Sweeper(cluster, cache, kinds, builds.changed)
        watcher = Watcher(cache, kinds, sweeper, builds.changed)
        await stack.enter_async_context(
            endpoints(
                health_port=config.operator.health_port,
                metrics_port=config.operator.metrics_port,
                ready=sweeper.synced.is_set,
                # Images wait their turn behind builds, which may take long and end by themselves.
                stuck=lambda: queue.worked() - (LONGEST_BUILD - STUCK),
            )
        )
        await run_until_stopped(
            stop,
            {
                **{
                    f"worker {number}": after(sweeper.synced, builds.work)
                    for number in range(config.builder.concurrency)
                },
                # Ended when nothing is built any more, so that others take over at once.
                "leader election": leadership.run(),
                "watch": after(sweeper.synced, watcher.run),
                "sweeps": sweeper.run(config.operator.sweep_interval, _nothing),
            },
        )


async def _nothing() -> None:
    """Have nothing to do after a sweep."""
    await asyncio.sleep(0)


if __name__ == "__main__":
    main()
