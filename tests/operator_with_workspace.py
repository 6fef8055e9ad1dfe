"""Our operator, reading telemetry from a stand-in of Log Analytics on this machine.

Of `monitoring.backend: LogAnalytics` only the service itself is not real: Azure's client is, but
for its token. The variable WORKSPACE tells the stand-in's address, as the configuration takes none
without TLS.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from azure.monitor.query.aio import LogsQueryClient
from modelops_operator.api.config import LogAnalyticsConfig
from modelops_operator.shell import main as operator
from modelops_operator.shell import telemetry

from tests.azure_identity import Identity


@asynccontextmanager
async def connected(_: LogAnalyticsConfig) -> AsyncIterator[LogsQueryClient]:
    """Give a client whose token is sent over plain http as well."""
    async with (
        Identity() as identity,
        LogsQueryClient(
            identity,
            endpoint=os.environ["WORKSPACE"],
            retry_total=0,
            authentication_policy=identity.policy(),
        ) as client,
    ):
        yield client


def main() -> None:
    """Be the operator."""
    vars(telemetry)["connected"] = connected
    operator.main()


if __name__ == "__main__":
    main()
