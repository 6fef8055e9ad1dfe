"""Carries out a plan: the only place where the operator writes to the cluster."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    ApiError,
    Cluster,
)
from modelops_operator.api.conditions import timestamp
from modelops_operator.api.facts import Failure
from modelops_operator.core.state import ChildRef, Event, Manifest, Plan
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.leader import Always, Leader
from modelops_operator.shell.queue import TokenBucket

_log = structlog.get_logger()
_WRITES = Counter("modelops_writes_total", "Writes to the API server.", ["kind", "verb"])
COMPONENT = "modelops-operator"


class NotLeadingError(Exception):
    """Another replica has taken over: nothing more is to be written."""


class Executor:
    """Writes what a plan says, in its order, as long as we lead."""

    def __init__(
        self, cluster: Cluster, cache: Cache, leader: Leader | Always, bucket: TokenBucket
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._leader = leader
        self._bucket = bucket

    async def execute_writes(self, plan: Plan, namespace: str) -> dict[ChildRef, Failure]:
        """Create, apply and delete; give what the API server refused."""
        refused: dict[ChildRef, Failure] = {}
        if plan.image is not None:
            await self._guarded(_ref(plan.image), self._create_image(plan.image), refused)
        for manifest in plan.apply:
            await self._guarded(_ref(manifest), self._apply(manifest), refused)
        for ref in plan.delete:
            await self._guarded(ref, self._delete(ref, namespace), refused)
        return refused

    async def write_status(self, live: Manifest, status: Manifest) -> bool:
        """Write the status if it differs; False if it is as it should be already."""
        if (live.get("status") or {}) == status:
            return False
        await self._allowed("ModelDeployment", "status")
        self._cache.put(await self._cluster.write_status(MODEL_DEPLOYMENTS, live, status))
        return True

    async def tell(self, live: Manifest, event: Event) -> None:
        """Post an Event; one that cannot be posted is only logged."""
        try:
            await self._allowed("Event", "create")
            await self._cluster.create(EVENTS, live["metadata"]["namespace"], _event(live, event))
        except ApiError as error:
            _log.warning("event not posted", error=error.message)

    async def delete_image(self, live: Manifest) -> None:
        """Delete a ModelImage that nobody asks for, if it is still the one that was read."""
        await self._allowed("ModelImage", "delete")
        await self._cluster.delete(MODEL_IMAGES, live)

    async def _guarded(self, ref: ChildRef, write: Any, refused: dict[ChildRef, Failure]) -> None:
        try:
            await write
        except ApiError as error:
            _log.warning("write refused", kind=ref.kind, name=ref.name, error=error.message)
            refused[ref] = error.failure(f"{ref.kind} {ref.name}")

    async def _create_image(self, manifest: Manifest) -> None:
        await self._allowed("ModelImage", "create")
        try:
            namespace = manifest["metadata"]["namespace"]
            self._cache.put(await self._cluster.create(MODEL_IMAGES, namespace, manifest))
        except ApiError as error:
            if error.status != 409:  # Another deployment asked for the same image.
                raise

    async def _apply(self, manifest: Manifest) -> None:
        await self._allowed(manifest["kind"], "apply")
        self._cache.put(await self._cluster.apply(CHILDREN[manifest["kind"]], manifest))

    async def _delete(self, ref: ChildRef, namespace: str) -> None:
        await self._allowed(ref.kind, "delete")
        resource = CHILDREN[ref.kind]
        live = await self._cluster.get(resource, namespace, ref.name)
        if live is not None:
            await self._cluster.delete(resource, live)

    async def _allowed(self, kind: str, verb: str) -> None:
        await self._bucket.take()
        if not self._leader.leading:
            raise NotLeadingError
        _WRITES.labels(kind, verb).inc()


def _ref(manifest: Manifest) -> ChildRef:
    return ChildRef(manifest["kind"], manifest["metadata"]["name"])


def _event(live: Manifest, event: Event) -> Mapping[str, Any]:
    metadata, now = live["metadata"], timestamp(datetime.now(UTC))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "generateName": f"{metadata['name']}.",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": COMPONENT},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
