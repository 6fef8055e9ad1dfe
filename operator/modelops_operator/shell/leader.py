"""Leader election: one replica writes, the others keep their caches warm.

The Lease is taken and renewed by compare-and-swap on its resource version. Whether we still lead
is judged by our own monotonic clock, counted from before the renewal was sent: a process that was
paused for longer than the lease finds, before its next write, that it does not lead any more; and a
write that was about to be sent when it was paused is given up before it is: see `fenced`.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import structlog
from prometheus_client import Gauge

from modelops_operator.adapters.kubernetes import LEASES, ApiError, Cluster
from modelops_operator.api.config import OperatorConfig

LEASE_SECONDS: Final = 10
RENEWAL_DEADLINE: Final = 7.0
"""Seconds after the last renewal until we stop writing: less than the lease, for clocks drift."""
RENEWAL_INTERVAL: Final = 2.0
WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks at the lease of another."""
_PATIENCE: Final = 3.0
"""Seconds for one attempt, so that there are some before the deadline."""
_POD_VARIABLE: Final = "MODELOPS_POD"

_log = structlog.get_logger()
_LEADS: Final = Gauge(
    "modelops_leads", "1 where this replica acts, 0 where it stands by.", ["lease"]
)
T = TypeVar("T")


class NotLeadingError(Exception):
    """Another replica has taken over: nothing more is to be written."""


class Leadership(Protocol):
    """Says who may write."""

    @property
    def remaining(self) -> float:
        """For how many seconds we may write if the lease is not renewed; 0 or less: not at all."""

    @property
    def leading(self) -> bool:
        """Whether we may write, now."""

    async def wait(self) -> None:
        """Wait until we lead."""

    async def run(self) -> None:
        """Do what leading takes, for ever; let go of it when cancelled."""


async def fenced(leadership: Leadership, write: Callable[[], Awaitable[T]]) -> T:
    """Write as long as we lead, however often the lease is renewed meanwhile.

    After a pause of the process, the end of the lease is noticed before a connection is there that
    the write could be sent over. Raises NotLeadingError.
    """
    if not leadership.leading:
        raise NotLeadingError
    try:
        async with asyncio.timeout(None) as limit:
            fence = _Fence(leadership, limit)
            try:
                return await write()
            finally:
                fence.end()
    except TimeoutError as error:
        raise NotLeadingError from error


class _Fence:
    """Ends what runs within a limit as soon as we lead no more."""

    def __init__(self, leadership: Leadership, limit: asyncio.Timeout) -> None:
        self._leadership = leadership
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(leadership.remaining, self._look)

    def _look(self) -> None:
        if self._leadership.leading:
            self._next = self._loop.call_later(self._leadership.remaining, self._look)
        else:
            self._limit.reschedule(self._loop.time())

    def end(self) -> None:
        """Let it be."""
        self._next.cancel()


class Leader:
    """Holds, or waits for, one Lease."""

    def __init__(self, cluster: Cluster, *, namespace: str, lease: str, identity: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._lease = lease
        self._identity = identity
        self._renewed = float("-inf")
        self._gained = asyncio.Event()
        self._held: Mapping[str, Any] | None = None
        """The Lease as we wrote it last."""
        self._seen: tuple[str, float] = ("", float("-inf"))
        """The Lease's version, and when we saw it first."""

    @property
    def remaining(self) -> float:
        """For how many seconds we may write if the lease is not renewed; 0 or less: not at all."""
        return self._renewed + RENEWAL_DEADLINE - time.monotonic()

    @property
    def leading(self) -> bool:
        """Whether we may write, now."""
        return self.remaining > 0

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
                    _log.info("leads" if led else "follows", lease=self._lease, me=self._identity)
                _LEADS.labels(self._lease).set(led)
                await asyncio.sleep(RENEWAL_INTERVAL if led else WATCH_INTERVAL)
        finally:
            _LEADS.labels(self._lease).set(False)
            if self.leading:
                self._renewed = float("-inf")
                await self._release()

    async def _attempt(self) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._take()
        except ApiError as error:
            if error.status != 409:  # Somebody was faster, which is how it should be.
                _log.warning("lease not reachable", lease=self._lease, error=error.message)
        except TimeoutError:
            _log.warning("lease not reachable", lease=self._lease, error="no answer in time")
        return False

    async def _take(self) -> bool:
        return await self._renew() or await self._claim_free()

    async def _renew(self) -> bool:
        """Write the Lease that we hold again without reading it; False where it is not ours."""
        held, self._held = self._held, None
        if held is None:
            return False
        try:
            self._held = await self._cluster.replace(LEASES, self._claim(held))
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
            return False
        return True

    async def _claim_free(self) -> bool:
        live = await self._cluster.get(LEASES, self._namespace, self._lease)
        if live is None:
            self._held = await self._cluster.create(LEASES, self._namespace, self._claim({}))
            return True
        if not self._available(live):
            # Should it have been ours, somebody took it away by force.
            self._renewed = float("-inf")
            return False
        self._held = await self._cluster.replace(LEASES, self._claim(live))
        return True

    def _available(self, live: Mapping[str, Any]) -> bool:
        """Tell whether the lease is ours, free, or was not renewed for its whole length.

        That length is counted from when we saw the last renewal: other machines' clocks may be off.
        """
        version = live["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        spec = live.get("spec", {})
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        length = float(spec.get("leaseDurationSeconds", LEASE_SECONDS))
        return time.monotonic() > self._seen[1] + length

    def _claim(self, live: Mapping[str, Any]) -> Mapping[str, Any]:
        former = live.get("spec", {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken_over = former.get("holderIdentity") != self._identity
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": live.get("metadata", {"namespace": self._namespace, "name": self._lease}),
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": now if taken_over else former.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": former.get("leaseTransitions", 0) + bool(live and taken_over),
            },
        }

    async def _release(self) -> None:
        """Leave the lease free, so that nobody has to wait for its end."""
        try:
            async with asyncio.timeout(_PATIENCE):
                live = await self._cluster.get(LEASES, self._namespace, self._lease)
                if live is not None and live["spec"].get("holderIdentity") == self._identity:
                    freed = {**live, "spec": {**live["spec"], "holderIdentity": ""}}
                    await self._cluster.replace(LEASES, freed)
        except (ApiError, TimeoutError) as error:
            _log.warning("lease not released", lease=self._lease, error=str(error))


class Always:
    """Leads where there is no election, because there is one replica."""

    remaining = float("inf")
    leading = True

    async def wait(self) -> None:
        """Go on at once."""

    async def run(self) -> None:
        """Have nothing to renew."""
        await asyncio.Event().wait()


def election(config: OperatorConfig, cluster: Cluster, *, suffix: str = "") -> Leadership:
    """Give what the configuration asks for; the suffix tells apart who stands for election."""
    settings = config.operator.leader_election
    if not settings.enabled:
        return Always()
    return Leader(
        cluster,
        namespace=config.operator.namespace,
        lease=settings.lease_name + suffix,
        identity=identity(),
    )


def identity() -> str:
    """Name this process: the pod where there is one, since its former process is dead for sure."""
    return os.environ.get(_POD_VARIABLE) or f"{socket.gethostname()}-{secrets.token_hex(4)}"
