"""Our operator, reading telemetry from a stand-in of Log Analytics on this machine.

Pods that are simulated write no logs. Of `monitoring.backend: LogAnalytics` only the service itself
is not real: Azure's client is, but for its token.

    python -m benchmarks.peers.operator_with_workspace http://127.0.0.1:PORT
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity.aio import DefaultAzureCredential
from azure.monitor.query.aio import LogsQueryClient
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.shell import main, telemetry


@asynccontextmanager
async def connected(_: LogAnalyticsConfig) -> AsyncIterator[LogsQueryClient]:
    """Give a client that sends no token, since the real one sends none over plain http."""
    policy: SansIOHTTPPolicy[Any, Any] = SansIOHTTPPolicy()
    async with (
        DefaultAzureCredential() as credential,
        LogsQueryClient(
            credential, endpoint=sys.argv[1], retry_total=0, authentication_policy=policy
        ) as client,
    ):
        yield client


if __name__ == "__main__":
    vars(telemetry)["connected"] = connected
    main.main()
