"""Lists everything now and then, to repair what the watches missed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.kubernetes import ApiError, Cluster, Resource
from modelops_operator.shell.cache import Cache, Manifest, key_of
from modelops_operator.shell.queue import Key

_SOON: Final = 5.0

_log = structlog.get_logger()
_SWEEPS: Final = Counter("modelops_sweeps_total", "Listings of everything.", ["outcome"])
_REPAIRS: Final = Counter(
    "modelops_sweep_repairs_total", "Objects that no watch had told of.", ["kind"]
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is kept of a kind."""

    resource: Resource
    namespaces: Sequence[str | None]
    """None: all of them."""
    labels: str = ""
    """Selector of the objects that concern us."""


class Sweeper:
    """Fills the cache at the start, and makes it true again at every interval."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        kinds: Sequence[Kind],
        changed: Callable[[Manifest], None],
    ) -> None:
        """Take what to list; `changed` is told of every object that is not as it was known."""
        self._cluster = cluster
        self._cache = cache
        self._kinds = kinds
        self._changed = changed
        self.synced = asyncio.Event()
        """Everything was listed once."""

    async def run(self, interval: timedelta, afterwards: Callable[[], Awaitable[None]]) -> None:
        """Sweep for ever; what fails is tried again soon."""
        while True:
            first = not self.synced.is_set()
            try:
                await self.sweep()
                self.synced.set()
                await afterwards()
            except ApiError as error:
                _SWEEPS.labels("failed").inc()
                _log.warning("sweep failed", error=error.message)
                await asyncio.sleep(_SOON)
            else:
                _SWEEPS.labels("done").inc()
                # The watches began after the first one: neither saw what went in between.
                await asyncio.sleep(_SOON if first else interval.total_seconds())

    async def sweep(self) -> None:
        """List all kinds, keep what is newer, drop what is gone. Raises ApiError."""
        departed = self._cache.departed()
        for kind in self._kinds:
            await self._sweep(kind)
        self._cache.forget_departed(departed)

    async def _sweep(self, kind: Kind) -> None:
        present: set[Key] = set()
        oldest = sys.maxsize
        for namespace in kind.namespaces:
            async for page in self._cluster.pages(kind.resource, namespace, kind.labels):
                oldest = min(oldest, page.version)
                for live in page.items:
                    present.add(key_of(live))
                    if self._cache.put(live):
                        self._repaired(live)
        for gone in self._cache.prune(kind.resource.kind, present, oldest):
            self._repaired(gone)

    def _repaired(self, live: Manifest) -> None:
        if self.synced.is_set():
            _REPAIRS.labels(live["kind"]).inc()
        self._changed(live)
