"""A report on one deployment: gathered as the operator does, written as a page or as text."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    MODEL_DEPLOYMENTS,
    PODS,
    ApiError,
    Cluster,
    Resource,
)
from modelops_operator.adapters.mlflow import MlflowRegistry
from modelops_operator.adapters.telemetry import Reading, Target, TelemetrySource
from modelops_operator.api.config import OperatorConfig, load
from modelops_operator.api.resources import ModelDeployment
from modelops_operator.core.health.report import Report, Subject, describe
from modelops_operator.core.owner import DEPLOYMENT_LABEL
from modelops_operator.core.release import running_release
from modelops_operator.shell.references import References
from modelops_operator.shell.telemetry import telemetry_source

CONFIG_MAPS: Final = Resource("v1", "ConfigMap", "configmaps")
_OF_THE_CHART: Final = "app.kubernetes.io/part-of=modelops"
_CONFIG: Final = "config.yaml"
_MOST_READINGS: Final = 50
"""Of a source that hands over page after page."""


class ReportError(Exception):
    """There is nothing to report on; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be reported on, and from where."""

    namespace: str
    name: str
    context: str | None
    """Of the kubeconfig; None is the current one."""
    config: Path | None
    """The operator's configuration; None: that of the operator in the cluster."""
    operator_namespace: str
    tracking_uri: str
    """Where MLflow is reached from here; empty: where the operator reaches it."""


async def gather(wish: Wish) -> Report:
    """Read what the operator reads, and judge it as the operator does.

    Raises ReportError, ConfigError, pydantic's ValidationError.
    """
    try:
        return await _gather(wish)
    except ApiError as error:
        told = f"{wish.namespace}/{wish.name} cannot be reported on: {error.message}"
        raise ReportError(told) from error


async def _gather(wish: Wish) -> Report:
    async with AsyncExitStack() as stack:
        cluster = await Cluster.connect(wish.context)
        stack.push_async_callback(cluster.close)
        live = await _live(cluster, wish)
        config = load(wish.config) if wish.config else await _config(cluster, wish)
        registry = MlflowRegistry(wish.tracking_uri or config.mlflow.tracking_uri)
        stack.callback(registry.close)
        source = await stack.enter_async_context(telemetry_source(config.monitoring, wish.context))

        child = await cluster.get(CHILDREN["Deployment"], wish.namespace, wish.name)
        release = running_release(child, live.get("status") or {}, {})
        if release is None:
            raise ReportError(
                f"ModelDeployment {wish.namespace}/{wish.name} serves nothing yet{_why(live)}"
            )
        monitoring = ModelDeployment.model_validate(live).spec.monitoring
        labels = f"{DEPLOYMENT_LABEL}={wish.name}"
        pods = [pod async for pod in cluster.list(PODS, wish.namespace, labels)]
        target = Target(
            namespace=wish.namespace, name=wish.name, pods=pods, window=monitoring.window
        )
        reading = await _read(source, target)
        references = References(registry)
        return describe(
            Subject(namespace=wish.namespace, name=wish.name, release=release),
            reading.lines,
            await references.watch(monitoring, release, pods, reading.failure, source.place),
            settle=source.settle,
            now=datetime.now(UTC),
            damaged=reading.damaged,
        )


async def _live(cluster: Cluster, wish: Wish) -> dict[str, Any]:
    live = await cluster.get(MODEL_DEPLOYMENTS, wish.namespace, wish.name)
    if live is not None:
        return live
    there = [
        f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        async for one in cluster.list(MODEL_DEPLOYMENTS, wish.namespace)
    ]
    raise ReportError(
        f"there is no ModelDeployment {wish.name} in namespace {wish.namespace}"
        + (f", but {', '.join(sorted(there)[:5])}" if there else ": name another one with -n")
    )


async def _config(cluster: Cluster, wish: Wish) -> OperatorConfig:
    """Read the configuration that the chart gives the operator."""
    place = wish.operator_namespace
    way_out = "name its namespace with --operator-namespace, or a file with --config"
    try:
        maps = [one async for one in cluster.list(CONFIG_MAPS, place, _OF_THE_CHART)]
    except ApiError as error:
        raise ReportError(
            f"the operator's configuration in namespace {place} cannot be read"
            f" ({error.message}): {way_out}"
        ) from error
    texts = [one["data"][_CONFIG] for one in maps if _CONFIG in one.get("data", {})]
    if not texts:
        raise ReportError(f"no operator is configured in namespace {place}: {way_out}")
    return OperatorConfig.model_validate(yaml.safe_load(texts[0]))


async def _read(source: TelemetrySource, target: Target) -> Reading:
    """Read until nothing more comes."""
    found: list[Reading] = []
    while len(found) < _MOST_READINGS:
        found.append((await source.collect([target], datetime.now(UTC)))[target.key])
        if not found[-1].lines:
            break
    return _joined(found)


def _joined(readings: Sequence[Reading]) -> Reading:
    return Reading(
        lines=tuple(line for reading in readings for line in reading.lines),
        failure=next((reading.failure for reading in readings if reading.failure), None),
        damaged=sum(reading.damaged for reading in readings),
        foreign=sum(reading.foreign for reading in readings),
    )


def _why(live: dict[str, Any]) -> str:
    conditions = (live.get("status") or {}).get("conditions") or ()
    ready = next((one for one in conditions if one["type"] == "Ready"), None)
    return f": {ready['message']}" if ready and ready.get("message") else ""
