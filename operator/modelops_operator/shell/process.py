"""What the operator's and the builder's processes have in common: logs, watches, an end."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import kopf
import structlog

from modelops_operator.adapters.kubernetes import Resource
from modelops_operator.api.config import ConfigError, OperatorConfig, configured_path, load
from modelops_operator.shell.cache import Cache, Manifest

_log = structlog.get_logger()


def main(run: Callable[[OperatorConfig], Coroutine[Any, Any, None]]) -> None:
    """Read the configuration and run until a signal; exit 2 if the configuration is unusable."""
    _configure_logs()
    try:
        config = load(configured_path())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    asyncio.run(run(config))


def identity() -> str:
    """Name this process among its replicas."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{os.getpid()}"


def watches(
    cache: Cache,
    kinds: Sequence[tuple[Resource, bool]],
    changed: Callable[[Manifest], None],
) -> kopf.OperatorRegistry:
    """Make kopf fill the cache and tell what changed; True: only children of ours."""
    registry = kopf.OperatorRegistry()
    for resource, managed in kinds:
        _watch(registry, resource, cache, changed, managed=managed)
    return registry


def _watch(
    registry: kopf.OperatorRegistry,
    resource: Resource,
    cache: Cache,
    changed: Callable[[Manifest], None],
    *,
    managed: bool,
) -> None:
    labels = {"app.kubernetes.io/managed-by": "modelops-operator"} if managed else None
    group, _, version = resource.api_version.rpartition("/")

    @kopf.on.event(group, version, resource.plural, labels=labels, registry=registry)
    async def heard(event: Any, **_: Any) -> None:
        live = {"apiVersion": resource.api_version, **event["object"], "kind": resource.kind}
        if event["type"] == "DELETED":
            key = (live["metadata"]["namespace"], live["metadata"]["name"])
            cache.drop(resource.kind, key)
            changed(live)
        elif cache.put(live):
            changed(live)


def kopf_operator(
    registry: kopf.OperatorRegistry, namespaces: Sequence[str]
) -> Coroutine[Any, Any, None]:
    """Give kopf's main loop; it ends with the process' SIGTERM or SIGINT."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # A watch that says nothing for this long is opened anew: connections die in silence.
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    return kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=tuple(namespaces),
    )


async def until_first(*loops: Coroutine[Any, Any, Any]) -> None:
    """Run loops side by side until one ends or fails; then end the others.

    Raises what made the first one fail.
    """
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _configure_logs() -> None:
    level = os.environ.get("MODELOPS_LOG_LEVEL", "INFO").upper()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
    )
