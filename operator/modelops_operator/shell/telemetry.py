"""Opens the place that the configuration says telemetry is read from."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from modelops_operator.adapters.kubernetes import Cluster
from modelops_operator.adapters.log_analytics import LogAnalytics, connected
from modelops_operator.adapters.pod_logs import PodLogs
from modelops_operator.adapters.telemetry import TelemetrySource
from modelops_operator.api.config import MonitoringBackend, MonitoringConfig


@asynccontextmanager
async def telemetry_source(
    config: MonitoringConfig, context: str | None = None
) -> AsyncIterator[TelemetrySource]:
    """Give the configured source with a client of its own; `context` is the kubeconfig's."""
    async with AsyncExitStack() as stack:
        if config.backend is MonitoringBackend.LOG_ANALYTICS:
            client = await stack.enter_async_context(connected(config.log_analytics))
            source: TelemetrySource = LogAnalytics(client, config.log_analytics)
        else:
            cluster = await Cluster.connect(context)
            stack.push_async_callback(cluster.close)
            source = PodLogs(cluster.client)
        stack.push_async_callback(source.close)
        yield source
