"""Carries out a plan: the only place where the operator writes to the cluster."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from prometheus_client import Counter

from modelops_operator.adapters.kubernetes import (
    CHILDREN,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODEL_IMAGES,
    SCALE_MANAGER,
    ApiError,
    Cluster,
)
from modelops_operator.api.conditions import timestamp
from modelops_operator.api.facts import Failure
from modelops_operator.core.owner import Owner
from modelops_operator.core.state import ChildRef, Event, Manifest, Plan
from modelops_operator.shell.cache import Cache
from modelops_operator.shell.leader import Leadership, NotLeadingError, fenced
from modelops_operator.shell.queue import TokenBucket

COMPONENT: Final = "modelops-operator"
EVENTS_PER_SECOND: Final = 1.0
EVENTS_AT_ONCE: Final = 50
"""Limits of the Events of type Normal."""
T = TypeVar("T")

_log = structlog.get_logger()
_WRITES: Final = Counter("modelops_writes_total", "Writes to the API server.", ["kind", "verb"])
_UNTOLD: Final = Counter("modelops_events_left_out_total", "Events of type Normal not posted.")


class OutdatedError(Exception):
    """An object is not the one that was decided about: decide again."""


class Executor:
    """Writes what a plan says, in its order, as long as we lead."""

    def __init__(
        self, cluster: Cluster, cache: Cache, leadership: Leadership, bucket: TokenBucket
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._leadership = leadership
        self._bucket = bucket
        self._chat = TokenBucket(rate=EVENTS_PER_SECOND, burst=EVENTS_AT_ONCE)

    @property
    def leading(self) -> bool:
        """Whether anything may be written, now."""
        return self._leadership.leading

    async def write(self, plan: Plan, owner: Owner) -> dict[ChildRef, Failure]:
        """Create, apply and delete; give what the API server refused.

        Raises NotLeadingError, OutdatedError.
        """
        refused: dict[ChildRef, Failure] = {}
        if plan.image is not None:
            await _guarded(_ref(plan.image), self._create_image(plan.image), refused)
        if plan.handover is not None:
            await _guarded(_ref(plan.handover), self._hand_over(plan.handover), refused)
        for manifest in plan.apply:
            if _ref(manifest) not in refused:
                await _guarded(_ref(manifest), self._apply(manifest), refused)
        for ref in plan.delete:
            await _guarded(ref, self._delete(ref, owner), refused)
        return refused

    async def write_status(self, live: Manifest, status: Manifest) -> bool:
        """Write the status if it differs; False if it is as it should be already.

        Raises ApiError; 409 where the object was written to meanwhile.
        """
        if (live.get("status") or {}) == status:
            return False
        written = await self._send(
            ("ModelDeployment", "status"),
            lambda: self._cluster.write_status(MODEL_DEPLOYMENTS, live, status),
        )
        self._cache.put(written)
        return True

    async def tell(self, live: Manifest, event: Event) -> None:
        """Post an Event; one that cannot be posted is only logged.

        Where thousands of objects have good news at once, only some of it is posted: it would cost
        as much as what it tells of, and the statuses say the same.
        """
        if event.type == "Normal" and not self._chat.spare():
            _UNTOLD.inc()
            return
        namespace, told = live["metadata"]["namespace"], _event(live, event)
        try:
            await self._send(
                ("Event", "create"), lambda: self._cluster.create(EVENTS, namespace, told)
            )
        except ApiError as error:
            _log.warning("event not posted", reason=event.reason, error=error.message)

    async def delete_image(self, live: Manifest) -> None:
        """Delete a ModelImage, if it is still the one that was read."""
        await self._send(("ModelImage", "delete"), lambda: self._cluster.delete(MODEL_IMAGES, live))

    async def _create_image(self, manifest: Manifest) -> None:
        namespace, name = (manifest["metadata"][key] for key in ("namespace", "name"))
        try:
            created = await self._send(
                ("ModelImage", "create"),
                lambda: self._cluster.create(MODEL_IMAGES, namespace, manifest),
            )
            self._cache.put(created)
        except ApiError as error:
            if error.status != 409:
                raise
            # Another deployment asked for the same image, and no watch has told us yet.
            live = await self._cluster.get(MODEL_IMAGES, namespace, name)
            if live is not None:
                self._cache.put(live)

    async def _hand_over(self, manifest: Manifest) -> None:
        resource = CHILDREN[manifest["kind"]]
        applied = await self._send(
            (manifest["kind"], "apply"),
            lambda: self._cluster.apply(resource, manifest, manager=SCALE_MANAGER),
        )
        self._cache.put(applied)

    async def _apply(self, manifest: Manifest) -> None:
        resource, metadata = CHILDREN[manifest["kind"]], manifest["metadata"]
        known = self._cache.get(manifest["kind"], (metadata["namespace"], metadata["name"]))
        if known is not None:
            # Meanwhile it may have been replaced by somebody else's of the same name.
            manifest = {**manifest, "metadata": {**metadata, "uid": known["metadata"]["uid"]}}
        try:
            applied = await self._send(
                (manifest["kind"], "apply"), lambda: self._cluster.apply(resource, manifest)
            )
            self._cache.put(applied)
        except ApiError as error:
            if known is None or error.status not in {409, 422}:
                raise
            live = await self._cluster.get(resource, metadata["namespace"], metadata["name"])
            if live is not None and live["metadata"]["uid"] == known["metadata"]["uid"]:
                raise
            self._cache.drop(known)
            raise OutdatedError from error

    async def _delete(self, ref: ChildRef, owner: Owner) -> None:
        resource = CHILDREN[ref.kind]
        live = await self._cluster.get(resource, owner.namespace, ref.name)
        if live is not None and owner.owns(live):
            await self._send((ref.kind, "delete"), lambda: self._cluster.delete(resource, live))

    async def _send(self, what: tuple[str, str], write: Callable[[], Awaitable[T]]) -> T:
        """Write when it is our turn, if we lead then; `what` is kind and verb, for the metrics."""
        await self._bucket.take()
        if not self.leading:
            raise NotLeadingError
        _WRITES.labels(*what).inc()
        return await fenced(self._leadership, write)


async def _guarded(ref: ChildRef, write: Awaitable[None], refused: dict[ChildRef, Failure]) -> None:
    try:
        await write
    except ApiError as error:
        refused[ref] = error.failure(f"{ref.kind} {ref.name}")


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
        "message": event.message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
