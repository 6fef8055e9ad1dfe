"""The configuration decides where telemetry comes from."""

import asyncio
from datetime import timedelta

import pytest
from modelops_operator.adapters.log_analytics import LogAnalytics
from modelops_operator.api.config import LogAnalyticsConfig, MonitoringBackend, MonitoringConfig
from modelops_operator.shell.telemetry import telemetry_source

pytestmark = pytest.mark.unit


def test_log_analytics_is_opened_on_request() -> None:
    place = LogAnalyticsConfig(resource_id="/subscriptions/s/resourceGroups/r/providers/p/t/n")
    config = MonitoringConfig(backend=MonitoringBackend.LOG_ANALYTICS, log_analytics=place)

    async def main() -> None:
        async with telemetry_source(config) as source:
            assert isinstance(source, LogAnalytics)
            assert source.settle == timedelta(minutes=5)

    asyncio.run(main())
