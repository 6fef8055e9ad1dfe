"""Leader election: one replica writes, the others keep their caches warm.

The Lease is taken and renewed by compare-and-swap on its resource version. Whether we still lead
is judged by our own monotonic clock, counted from before the renewal was sent: a process that was
paused for longer than the lease finds, before its next write, that it does not lead any more.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from modelops_operator.adapters.kubernetes import LEASES, ApiError, Cluster

LEASE_SECONDS: Final = 15
RENEWAL_DEADLINE: Final = 10.0
"""Seconds after the last renewal until we stop writing: less than the lease, for clocks drift."""
RENEWAL_INTERVAL: Final = 2.0

_log = structlog.get_logger()


class Leader:
    """Holds, or waits for, one Lease."""

    def __init__(self, cluster: Cluster, *, namespace: str, lease: str, identity: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._lease = lease
        self._identity = identity
        self._renewed = float("-inf")
        self._gained = asyncio.Event()
        self._seen: tuple[str, float] = ("", float("-inf"))

    @property
    def leading(self) -> bool:
        """Whether we may write, now."""
        return time.monotonic() < self._renewed + RENEWAL_DEADLINE

    async def wait(self) -> None:
        """Wait until we lead."""
        while not self.leading:
            self._gained.clear()
            await self._gained.wait()

    async def run(self) -> None:
        """Take the lease and renew it, for ever; let go of it when cancelled."""
        led = False
        try:
            while True:
                started = time.monotonic()
                if await self._attempt():
                    self._renewed = started
                    self._gained.set()
                if led != self.leading:
                    led = self.leading
                    _log.info("leads" if led else "follows", lease=self._lease)
                await asyncio.sleep(RENEWAL_INTERVAL)
        finally:
            if self.leading:
                self._renewed = float("-inf")
                await self._release()

    async def _attempt(self) -> bool:
        try:
            live = await self._cluster.get(LEASES, self._namespace, self._lease)
            if live is None:
                lease = self._manifest({})
                await self._cluster.create(LEASES, self._namespace, lease)
                return True
            if not self._available(live):
                return False
            await self._cluster.replace(LEASES, self._manifest(live))
        except ApiError as error:
            if error.status != 409:
                _log.warning("lease not reachable", lease=self._lease, error=error.message)
            return False
        return True

    def _available(self, live: dict[str, Any]) -> bool:
        """Tell whether the lease is ours, free, or was not renewed for its whole length.

        That length is counted from when we saw the last renewal: other machines' clocks may be off.
        """
        version = live["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        holder = live.get("spec", {}).get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        length = live["spec"].get("leaseDurationSeconds", LEASE_SECONDS)
        return time.monotonic() > self._seen[1] + float(length)

    def _manifest(self, live: dict[str, Any], holder: str | None = None) -> dict[str, Any]:
        spec = live.get("spec", {})
        holder = self._identity if holder is None else holder
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken_over = spec.get("holderIdentity") != holder
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": live.get("metadata") or {"namespace": self._namespace, "name": self._lease},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": now if taken_over else spec.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": spec.get("leaseTransitions", 0) + taken_over,
            },
        }

    async def _release(self) -> None:
        try:
            live = await self._cluster.get(LEASES, self._namespace, self._lease)
            if live is not None and live["spec"].get("holderIdentity") == self._identity:
                await self._cluster.replace(LEASES, self._manifest(live, holder=""))
        except ApiError as error:
            _log.warning("lease not released", lease=self._lease, error=error.message)


class Always:
    """Stands in where leader election is off: there is one replica."""

    leading = True

    async def wait(self) -> None:
        """Go on at once."""

    async def run(self) -> None:
        """Nothing is to be renewed."""
