"""Gathers everything known about one ModelDeployment into one frozen `Observed`."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from modelops_operator.adapters.kubernetes import CHILDREN, ApiError, Cluster
from modelops_operator.api.facts import Failure, ModelVersion, Pod, Role
from modelops_operator.core.state import ChildRef, Health, Manifest, Observed
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.queue import Key

CONTAINER: Final = "server"
_LOG_LINES: Final = 8
_REVISION: Final = "modelops.dev/revision"


class Gatherer:
    """Reads the cache, and asks the API server for what no watch shows."""

    def __init__(self, cache: Cache, cluster: Cluster) -> None:
        self._cache = cache
        self._cluster = cluster
        self._tails: dict[tuple[str, int], str] = {}
        """Last words by pod uid and number of restarts."""

    async def observe(
        self,
        key: Key,
        *,
        models: Mapping[Role, ModelVersion | Failure],
        health: Health | None,
        failures: Mapping[ChildRef, Failure],
    ) -> Observed:
        """Gather. Raises ApiError when the API server does not tell what is needed."""
        children = await asyncio.gather(*(self._child(kind, key) for kind in CHILDREN))
        pods = [await self._pod(live) for live in self._cache.pods_of(key)]
        return Observed(
            models=models,
            images={name: live for (_, name), live in self._cache.all("ModelImage").items()},
            children={
                ChildRef(live["kind"], live["metadata"]["name"]): live for live in children if live
            },
            pods=tuple(pods),
            health=health,
            write_failures=failures,
        )

    def forget(self) -> None:
        """Drop the last words of pods that are gone."""
        living = {live["metadata"]["uid"] for live in self._cache.all("Pod").values()}
        self._tails = {tail: text for tail, text in self._tails.items() if tail[0] in living}

    async def _child(self, kind: str, key: Key) -> Manifest | None:
        """Give a child, or what stands in its place and is not ours: our watch shows only ours."""
        known = self._cache.get(kind, key)
        if known is not None:
            return known
        live = await self._cluster.get(CHILDREN[kind], *key)
        return None if live is None else {"kind": kind, **live}

    async def _pod(self, live: Manifest) -> Pod:
        metadata, status = live["metadata"], live.get("status", {})
        statuses = status.get("containerStatuses") or [{}]
        container = next((one for one in statuses if one.get("name") == CONTAINER), statuses[0])
        waiting = container.get("state", {}).get("waiting") or _unscheduled(status)
        ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get(
            "terminated", {}
        )
        restarts = container.get("restartCount", 0)
        return Pod(
            name=metadata["name"],
            revision=metadata.get("labels", {}).get(_REVISION, ""),
            ready=any(one["type"] == "Ready" and one["status"] == "True" for one in _of(status)),
            phase=status.get("phase", "Unknown"),
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            deleting="deletionTimestamp" in metadata,
            waiting=waiting.get("reason", ""),
            message=waiting.get("message") or ended.get("message") or "",
            restarts=restarts,
            exit_code=ended.get("exitCode"),
            terminated=ended.get("reason", ""),
            log_tail=await self._tail(metadata, restarts) if ended and restarts else "",
        )

    async def _tail(self, metadata: Mapping[str, Any], restarts: int) -> str:
        """Give the last words of the container before the present one, read once a restart."""
        place = (metadata["uid"], restarts)
        if place not in self._tails:
            try:
                self._tails[place] = await self._cluster.log_tail(
                    metadata["namespace"], metadata["name"], CONTAINER, _LOG_LINES
                )
            except ApiError as error:
                return f"(its log cannot be read: {error.message})"
        return self._tails[place]


def _of(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from status.get("conditions") or ()


def _unscheduled(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for condition in _of(status):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition
    return {}
