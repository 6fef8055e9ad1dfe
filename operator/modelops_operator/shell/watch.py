"""Kopf, for what it is good at: watching. Its events fill the cache and nothing else.

With handlers of `on.event` alone, kopf keeps no state in the objects: no finalizer, no annotation.
Nor does it here in memory: to find out what changed, it would copy every object several times.
What our own work needs (queue, workers, election, metrics) is beside it in the same event loop, so
kopf's tasks are started and ended here rather than by `kopf.run`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import kopf
import structlog
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from modelops_operator.shell.cache import Cache, Manifest
from modelops_operator.shell.process import Stop
from modelops_operator.shell.sweep import Kind

_PAUSE_AFTER_FAILURE: Final = 5.0
_CHUNK: Final = 250
_QUIET: Final = 600
"""Seconds after which the API server ends a watch, so that a silent one does not last."""

_log = structlog.get_logger()


class Watcher:
    """Watches kinds in the same namespaces."""

    def __init__(
        self,
        cache: Cache,
        kinds: Sequence[Kind],
        changed: Callable[[Manifest], None],
        stop: Stop,
    ) -> None:
        """Take what to watch; `changed` is told of every object that is other than before."""
        self._stop = stop
        self._cache = cache
        self._kinds = kinds
        self._namespaces = [name for name in kinds[0].namespaces if name is not None]
        self._changed = changed

    async def run(self) -> None:
        """Watch for ever. Where kopf gives up, it is started anew."""
        while True:
            try:
                await self._watch()
            except Exception:  # noqa: BLE001 - the fault is logged, and the sweep covers the gap
                _log.exception("watch failed")
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)

    async def _watch(self) -> None:
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=self._settings(),
            memories=_NoMemories(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
        )
        self._stop.listen()  # Kopf has just taken the signals for itself.
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(log_in)
        for kind in self._kinds:
            group, _, version = kind.resource.api_version.rpartition("/")
            place = (group, version, kind.resource.plural)
            kopf.on.event(*place, registry=registry, id=kind.resource.plural)(self._hear)
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.persistence.diffbase_storage = _NoDifferences()
        settings.persistence.progress_storage = _NoProgress()
        # The kinds are known; to look out for new ones would need rights on all of them.
        settings.scanning.disabled = True
        settings.process.ultimate_exiting_timeout = None
        settings.watching.chunk_size = _CHUNK
        settings.watching.server_timeout = _QUIET
        settings.queueing.idle_timeout = 1.0
        for kind in self._kinds:
            if kind.labels:
                group, _, version = kind.resource.api_version.rpartition("/")
                settings.watching.label_selectors[group, version, kind.resource.plural] = (
                    kind.labels
                )
        return settings

    async def _hear(self, event: Any, **_: Any) -> None:
        live: Manifest = event["object"]
        other = self._cache.drop(live) if event["type"] == "DELETED" else self._cache.put(live)
        if other:
            self._changed(live)


class _NoMemories(ResourceMemories):
    """Remembers nothing between two events: it would be as much as the cache takes."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """Give a new one each time."""
        return await super().recall(raw_body, **{**options, "ephemeral": True})


class _NoDifferences(kopf.DiffBaseStorage):
    """Remembers nothing of an object."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Find nothing worth comparing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Know nothing."""
        return None

    def store(self, **_: Any) -> None:
        """Keep nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Remembers nothing of handlers, which there are none of."""

    def fetch(self, **_: Any) -> None:
        """Know nothing."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""

    def purge(self, **_: Any) -> None:
        """Remove nothing."""

    def touch(self, **_: Any) -> None:
        """Change nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Have nothing to take out."""
        return essence


async def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Connect as the pod's service account, or as the kubeconfig says."""
    in_cluster = kopf.login_with_service_account(**arguments)
    return in_cluster or kopf.login_with_kubeconfig(**arguments)
