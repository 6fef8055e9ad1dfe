"""Lists everything now and then, to repair what the watches missed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.kubernetes import ApiError, Cluster, Resource
from modelops_operator.shell.cache import Cache, Manifest, key_of
from modelops_operator.shell.queue import Key

_PAUSE: Final = 5.0
"""Seconds between two sweeps at least, and after one that failed."""

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
        """Take what to list; `changed` is told of every object that is not as it was known.

        Owners are listed last: what is missing before, but went after its owner, both are gone.
        """
        self._cluster = cluster
        self._cache = cache
        self._kinds = kinds
        self._changed = changed
        self.synced = asyncio.Event()
        """Everything was listed once."""
        self.versions: dict[tuple[str, str | None], int] = {}
        """By kind and namespace: the moment that the last list tells of."""
        self._hurried = asyncio.Event()

    async def run(self, interval: timedelta, afterwards: Callable[[], Awaitable[None]]) -> None:
        """Sweep for ever; what fails is tried again soon."""
        while True:
            pause = interval.total_seconds()
            self._hurried.clear()
            try:
                await self.sweep()
                self.synced.set()
                await afterwards()
            except ApiError as error:
                _SWEEPS.labels("failed").inc()
                _log.warning("sweep failed", error=error.message)
                pause = min(pause, _PAUSE)
            else:
                _SWEEPS.labels("done").inc()
            least = min(pause, _PAUSE)  # for who hurries us may do so all the time
            await asyncio.sleep(least)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - least):
                    await self._hurried.wait()

    def hurry(self) -> None:
        """Sweep soon: a watch has missed something."""
        self._hurried.set()

    async def sweep(self) -> None:
        """List all kinds, keep what is newer, then drop what is gone. Raises ApiError."""
        departed = self._cache.departed()
        missing = [live for kind in self._kinds for live in await self._list(kind)]
        # All before any is told of: what went with its owner did not go alone.
        gone = [live for live in missing if self._cache.drop(live)]
        for live in gone:
            self._repaired(live)
        self._cache.forget_departed(departed)

    async def _list(self, kind: Kind) -> list[Manifest]:
        """Keep what is newer; give what is not there any more."""
        present: set[Key] = set()
        oldest = sys.maxsize
        for namespace in kind.namespaces:
            async for page in self._cluster.pages(kind.resource, namespace, kind.labels):
                oldest = min(oldest, page.version)
                self.versions[kind.resource.kind, namespace] = page.version
                for live in page.items:
                    present.add(key_of(live))
                    if self._cache.put(live):
                        self._repaired(live)
        return self._cache.missing(kind.resource.kind, present, oldest)

    def _repaired(self, live: Manifest) -> None:
        if self.synced.is_set():
            _REPAIRS.labels(live["kind"]).inc()
        self._changed(live)
