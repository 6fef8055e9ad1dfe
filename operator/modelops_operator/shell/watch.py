"""Kopf, for what it is good at: to log in, and to keep watches alive. The cache gets their events.

Kopf's handlers, those of `on.event` too, are left out. For each event kopf makes a task, copies of
the object and a dozen things that tell what has changed, which took a third of all CPU; ours only
put the object into the cache, which knows what it had. So the watches are taken from a layer below,
which kopf does not promise to keep as it is; uv.lock holds its version.
"""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

import kopf
import structlog
from kopf._cogs.clients import auth, errors, watching
from kopf._cogs.structs import credentials, references

from modelops_operator.shell.cache import Cache, Manifest
from modelops_operator.shell.sweep import Kind, Sweeper

_PAUSE_AFTER_FAILURE: Final = 5.0
_PAUSE: Final = 0.1
"""Seconds from the end of a watch, which is usual, to the next."""
_QUIET: Final = 600
"""Seconds after which the API server ends a watch, so that a silent one does not last."""
_BACKOFFS: Final = (1.0, 2.0)
"""Seconds between attempts to begin a watch, so that none is late when the API server is back."""
_TOLD: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})

_log = structlog.get_logger()


class Watcher:
    """Watches everything that a sweeper lists, from where its first list ends."""

    def __init__(
        self,
        cache: Cache,
        kinds: Sequence[Kind],
        sweeper: Sweeper,
        changed: Callable[[Manifest], None],
    ) -> None:
        """Take what to watch; `changed` is told of every object that is other than before."""
        self._cache = cache
        self._kinds = kinds
        self._sweeper = sweeper
        self._changed = changed
        self._since: dict[tuple[str, str | None], str | None] = {}
        """By kind and namespace: the version to go on from; None: of now."""

    async def run(self) -> None:
        """Watch for ever."""
        versions = self._sweeper.versions
        self._since = {place: str(version) for place, version in versions.items()}
        while True:
            vault = credentials.Vault()
            auth.vault_var.set(vault)
            try:
                await self._follow_all(vault)
            except* credentials.LoginError:
                # What a vault has found to be refused, it does not try again.
                _log.warning("watches are refused", told="is the token still valid?")
            finally:
                await vault.close()
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)

    async def _follow_all(self, vault: credentials.Vault) -> None:
        """Watch all kinds. Raises LoginErrors."""
        settings = self._settings()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_stay_logged_in(vault, settings))
            for kind in self._kinds:
                for namespace in kind.namespaces:
                    tasks.create_task(self._follow(kind, namespace, settings))

    async def _follow(
        self, kind: Kind, namespace: str | None, settings: kopf.OperatorSettings
    ) -> None:
        """Watch a kind in a namespace; None: in all of them. Raises LoginError."""
        while True:
            try:
                await self._watch(kind, namespace, settings)
                await asyncio.sleep(_PAUSE)
            except credentials.LoginError:
                raise
            except Exception as error:  # noqa: BLE001 - it is logged; the next goes on from there
                _log.warning("watch failed", kind=kind.resource.kind, error=str(error))
                await asyncio.sleep(_PAUSE_AFTER_FAILURE)

    async def _watch(
        self, kind: Kind, namespace: str | None, settings: kopf.OperatorSettings
    ) -> None:
        """Hear of all changes until the watch ends."""
        place = kind.resource.kind, namespace
        stream = watching.watch_objs(
            settings=settings,
            resource=_resource(kind),
            namespace=references.NamespaceName(namespace) if namespace else None,
            since=self._since[place],
            operator_pause_waiter=asyncio.get_running_loop().create_future(),
        )
        try:
            async for event in stream:
                live: Manifest = event["object"]
                if event["type"] == "ERROR":
                    self._lose(place, live.get("message", ""))
                    return
                self._since[place] = live["metadata"]["resourceVersion"]
                if event["type"] in _TOLD:
                    self._hear(event["type"], live)
        except errors.APIError as error:
            if error.status != HTTPStatus.GONE:
                raise
            self._lose(place, str(error))

    def _lose(self, place: tuple[str, str | None], told: str) -> None:
        """Begin anew with what there is now; what went meanwhile, only a list can tell."""
        _log.info("watch lost its place", kind=place[0], told=told)
        self._since[place] = None
        self._sweeper.hurry()

    def _hear(self, type_: str, live: Manifest) -> None:
        other = self._cache.drop(live) if type_ == "DELETED" else self._cache.put(live)
        if other:
            self._changed(live)

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.watching.server_timeout = _QUIET
        settings.networking.error_backoffs = _BACKOFFS
        for kind in self._kinds:
            if kind.labels:
                resource = _resource(kind)
                place = (resource.group, resource.version, resource.plural)
                settings.watching.label_selectors[place] = kind.labels
        return settings


def _resource(kind: Kind) -> references.Resource:
    group, _, version = kind.resource.api_version.rpartition("/")
    return references.Resource(group, version, kind.resource.plural, namespaced=True)


async def _stay_logged_in(vault: credentials.Vault, settings: kopf.OperatorSettings) -> None:
    """Log in where nobody is, as at the beginning and when a token has expired."""
    while True:
        await vault.wait_for_emptiness()
        try:
            found = await log_in(settings=settings)
        except Exception as error:  # noqa: BLE001 - a file that is being written, say
            _log.warning("watches cannot log in", error=repr(error))
            found = None
        if found is None:
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)
        else:
            await vault.populate({"login": found})


async def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Connect as the pod's service account, or as the kubeconfig says."""
    in_cluster = kopf.login_with_service_account(**arguments)
    return in_cluster or kopf.login_with_kubeconfig(**arguments)
