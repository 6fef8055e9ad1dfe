"""Lists everything now and then, to repair what the watches missed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from modelops_operator.adapters.kubernetes import ApiError, Cluster, Resource
from modelops_operator.shell.cache import Cache, Manifest, key_of, version_of

MANAGED: Final = "app.kubernetes.io/managed-by=modelops-operator"
YOUNG: Final = timedelta(minutes=2)
"""A ModelImage younger than this is not judged: who asked for it may not be seen yet."""
_PAUSE_AFTER_FAILURE: Final = 5.0

_log = structlog.get_logger()


class Sweeper:
    """Fills the cache at the start, and makes it true again at every interval."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        kinds: Sequence[tuple[Resource, Sequence[str | None], str]],
        changed: Callable[[Manifest], None],
    ) -> None:
        """`kinds`: what to list, in which namespaces (None: all), by which labels."""
        self._cluster = cluster
        self._cache = cache
        self._kinds = kinds
        self._changed = changed
        self.synced = asyncio.Event()

    async def run(self, interval: timedelta, afterwards: Callable[[], Awaitable[None]]) -> None:
        """Sweep for ever; what fails is tried again soon."""
        while True:
            try:
                await self.sweep()
                self.synced.set()
                await afterwards()
            except ApiError as error:
                _log.warning("sweep failed", error=error.message)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE)
            else:
                await asyncio.sleep(interval.total_seconds())

    async def sweep(self) -> None:
        """List all kinds, keep what is newer, drop what is gone. Raises ApiError."""
        for resource, namespaces, labels in self._kinds:
            present = set()
            before = max(map(version_of, self._cache.all(resource.kind).values()), default=0)
            for namespace in namespaces:
                async for live in self._cluster.list(resource, namespace, labels):
                    present.add(key_of(live))
                    if self._cache.put(live):
                        self._changed(live)
            for gone in self._cache.prune(resource.kind, present, before):
                self._changed(gone)


def is_young(live: Manifest) -> bool:
    """Tell whether an object was created only just now."""
    created = datetime.fromisoformat(live["metadata"]["creationTimestamp"])
    return datetime.now(UTC) - created < YOUNG
