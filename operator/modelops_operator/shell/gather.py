"""Gathers everything known about one ModelDeployment into one frozen `Observed`."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from modelops_operator.adapters.kubernetes import CHILDREN, ApiError, Cluster
from modelops_operator.api.facts import Failure, ModelVersion, Pod, Role, Signed
from modelops_operator.core.children import KINDS
from modelops_operator.core.pod_template import CONTAINER, REVISION_LABEL
from modelops_operator.core.state import ChildRef, Health, Manifest, Observed
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.queue import Key

_LOG_LINES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the shell remembers of an object, and no watch shows."""

    health: Health | None = None
    """The last verdict."""
    refused: Mapping[ChildRef, Failure]
    """What the API server refused in the last pass."""
    signatures: Mapping[str, Signed | Failure] = field(default_factory=dict)
    """What is known of the signatures of images, this object's among them."""


class Gatherer:
    """Reads the cache, and asks the API server for what no watch shows."""

    def __init__(self, cache: Cache, cluster: Cluster, *, images: str) -> None:
        """`images` is the namespace of the ModelImages."""
        self._cache = cache
        self._cluster = cluster
        self._images = images
        self._tails: dict[Key, dict[tuple[str, int], str]] = {}
        """Last words by deployment, pod uid and number of restarts."""

    async def observe(
        self,
        key: Key,
        models: Mapping[Role, ModelVersion | Failure],
        memory: Memory,
        *,
        kinds: Collection[str] = KINDS,
    ) -> Observed:
        """Gather. `kinds` are those of the children that there should be.

        Raises ApiError when the API server does not tell what is needed.
        """
        others = await self._others(key, kinds)
        tails = await self._read_tails(key)
        # From here on nothing else runs, so that all of it is from one moment.
        known = {kind: self._cache.get(kind, key) or others.get(kind) for kind in CHILDREN}
        return Observed(
            models=models,
            images=self._cache.within("ModelImage", self._images),
            children={
                ChildRef(kind, key[1]): live for kind, live in known.items() if live is not None
            },
            pods=tuple(_pod(live, tails) for live in self._cache.pods_of(key)),
            signatures=memory.signatures,
            health=memory.health,
            write_failures=memory.refused,
        )

    def forget(self, key: Key) -> None:
        """Drop what is remembered of an object that is gone."""
        self._tails.pop(key, None)

    async def _others(self, key: Key, kinds: Collection[str]) -> Mapping[str, Manifest]:
        """Give what stands where a child is not known: watches show only what carries our label.

        One after the other: each connection that is open at a time takes a quarter of a megabyte.
        """
        missing = [kind for kind in kinds if self._cache.version(kind, key) == 0]
        found = {kind: await self._cluster.get(CHILDREN[kind], *key) for kind in missing}
        return {kind: live for kind, live in found.items() if live is not None}

    async def _read_tails(self, key: Key) -> Mapping[tuple[str, int], str]:
        """Give the last words of the crashed pods: read once for each restart."""
        before, now = self._tails.get(key, {}), {}
        for live in list(self._cache.pods_of(key)):
            place = _instance(live)
            if _crashed(live):
                now[place] = before.get(place) or await self._tail(live)
        if now:
            self._tails[key] = now
        else:
            self._tails.pop(key, None)
        return now

    async def _tail(self, live: Manifest) -> str:
        metadata = live["metadata"]
        # While it waits for its next start, the instance that crashed is the former one already.
        previous = "terminated" not in _container(live).get("state", {})
        try:
            return await self._cluster.log_tail(
                metadata["namespace"],
                metadata["name"],
                CONTAINER,
                lines=_LOG_LINES,
                previous=previous,
            )
        except ApiError as error:
            return f"(its log cannot be read: {error.message})"


def _pod(live: Manifest, tails: Mapping[tuple[str, int], str]) -> Pod:
    metadata, status, container = live["metadata"], live.get("status", {}), _container(live)
    waiting = container.get("state", {}).get("waiting") or _unscheduled(status)
    ended = _ended(container)
    return Pod(
        name=metadata["name"],
        revision=metadata.get("labels", {}).get(REVISION_LABEL, ""),
        ready=_is_ready(status),
        phase=status.get("phase", "Unknown"),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        waiting=waiting.get("reason", ""),
        message=waiting.get("message") or ended.get("message") or "",
        restarts=container.get("restartCount", 0),
        exit_code=ended.get("exitCode"),
        terminated=ended.get("reason", ""),
        log_tail=tails.get(_instance(live), ""),
    )


def _container(live: Manifest) -> Mapping[str, Any]:
    statuses = live.get("status", {}).get("containerStatuses") or ()
    return next((one for one in statuses if one.get("name") == CONTAINER), {})


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any]:
    state, last = container.get("state", {}), container.get("lastState", {})
    return state.get("terminated") or last.get("terminated") or {}


def _instance(live: Manifest) -> tuple[str, int]:
    return live["metadata"]["uid"], _container(live).get("restartCount", 0)


def _crashed(live: Manifest) -> bool:
    ended = _ended(_container(live))
    return bool(ended) and not _is_ready(live.get("status", {}))


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(status))


def _conditions(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from status.get("conditions") or ()


def _unscheduled(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for condition in _conditions(status):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition
    return {}
