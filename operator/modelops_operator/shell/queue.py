"""The work queue: keys wait once, are worked on once at a time, and come back after failures.

Two lanes: what somebody edited goes before what merely is to be looked at again. In each, the
namespaces take turns, so that one with thousands of objects does not keep the others waiting. A key
that is added while it is worked on comes again afterwards. After a failure it comes back later and
later.
Everything runs in one event loop, so that nothing needs a lock.
"""

import asyncio
import random
from collections import OrderedDict
from enum import IntEnum
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

Key = tuple[str, str]
"""Namespace and name."""

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 300.0
"""Seconds until a key that failed comes back: doubled each time, up to the longest."""

_DEPTH: Final = Gauge("modelops_queue_depth", "Keys that wait.", ["queue", "lane"])
_WAIT: Final = Histogram("modelops_queue_wait_seconds", "How long keys waited.", ["queue"])
_WORK: Final = Histogram("modelops_work_seconds", "How long a key was worked on.", ["queue"])
_RETRIES: Final = Counter(
    "modelops_queue_retries_total", "Keys put back after a failure.", ["queue"]
)


class Lane(IntEnum):
    """What goes first."""

    EDIT = 0
    REFRESH = 1


class _Waiting:
    """The keys of one lane: namespaces take turns, each with its keys in the order they came."""

    def __init__(self) -> None:
        self._namespaces: OrderedDict[str, OrderedDict[Key, float]] = OrderedDict()
        """Keys, and since when they wait."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: Key) -> bool:
        return key in self._namespaces.get(key[0], ())

    def put(self, key: Key, since: float) -> None:
        """Add a key that is not there."""
        self._count += 1
        self._namespaces.setdefault(key[0], OrderedDict())[key] = since

    def remove(self, key: Key) -> float | None:
        """Take a key out, wherever it is; None if it is not there."""
        since = self._namespaces.get(key[0], OrderedDict()).pop(key, None)
        if since is not None:
            self._count -= 1
            if not self._namespaces[key[0]]:
                del self._namespaces[key[0]]
        return since

    def take(self) -> tuple[Key, float]:
        """Take the next key; there must be one."""
        namespace, keys = self._namespaces.popitem(last=False)
        taken = keys.popitem(last=False)
        self._count -= 1
        if keys:
            self._namespaces[namespace] = keys
        return taken

    def oldest(self) -> float | None:
        """Tell since when the oldest key waits."""
        return min((next(iter(keys.values())) for keys in self._namespaces.values()), default=None)


class _Pending(NamedTuple):
    """A key that is to be added later."""

    timer: asyncio.TimerHandle
    lane: Lane


class WorkQueue:
    """Keys to be worked on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lanes = {lane: _Waiting() for lane in Lane}
        self._active: dict[Key, float] = {}
        self._again: dict[Key, Lane] = {}
        self._timers: dict[Key, _Pending] = {}
        self._failures: dict[Key, int] = {}
        self._progress = float("-inf")
        """When a key was taken or given back last."""
        self._filled = asyncio.Event()

    def add(self, key: Key, lane: Lane = Lane.EDIT) -> None:
        """Put a key into a lane; a key that waits in the slower lane moves to the faster one."""
        if key in self._active:
            self._again[key] = min(lane, self._again.get(key, lane))
            return
        if any(key in self._lanes[faster] for faster in Lane if faster <= lane):
            return
        since = self._lanes[Lane.REFRESH].remove(key)
        self._lanes[lane].put(key, _now() if since is None else since)
        self._measure()
        self._filled.set()

    def add_later(self, key: Key, delay: float, lane: Lane = Lane.REFRESH) -> None:
        """Add a key to a lane after `delay` seconds; of two such, the sooner and faster win."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        pending = self._timers.get(key)
        if pending is not None:
            due, lane = min(due, pending.timer.when()), min(lane, pending.lane)
            if (due, lane) == (pending.timer.when(), pending.lane):
                return
            pending.timer.cancel()
        self._timers[key] = _Pending(loop.call_at(due, self._elapsed, key), lane)

    async def get(self) -> Key:
        """Wait for a key and take it; it must be given back with `done` or `retry`."""
        while True:
            for lane in self._lanes.values():
                if lane:
                    key, since = lane.take()
                    self._active[key] = self._progress = _now()
                    _WAIT.labels(self._name).observe(self._active[key] - since)
                    self._measure()
                    return key
            # Between this check and the wait nothing else runs, so no key can be overlooked.
            self._filled.clear()
            await self._filled.wait()

    def done(self, key: Key) -> None:
        """Give a key back that went well."""
        self._failures.pop(key, None)
        again = self._release(key)
        if again is not None:
            self.add(key, again)

    def retry(self, key: Key) -> float:
        """Give a key back that failed; it comes again after the seconds that are returned.

        An edit meanwhile may have mended it, so that it comes again at once. What else was heard
        may well be the echo of our own failed attempt, and waits.
        """
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        ceiling = min(FIRST_DELAY * 2.0 ** min(count, 32), LONGEST_DELAY)
        # Half of it at random: keys that failed together shall not come back together.
        delay = ceiling * (0.5 + random.random() / 2)  # noqa: S311 - jitter is no secret
        _RETRIES.labels(self._name).inc()
        if self._release(key) is Lane.EDIT:
            self.add(key, Lane.EDIT)
        self.add_later(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a key that is gone."""
        self._failures.pop(key, None)
        pending = self._timers.pop(key, None)
        if pending is not None:
            pending.timer.cancel()

    def stuck(self) -> float:
        """Tell for how many seconds nothing has gone on although there is work; or 0.

        A long queue is none, as long as it is worked off; a single key that is never given back is.
        """
        oldest = [since for lane in self._lanes.values() if (since := lane.oldest()) is not None]
        idle = _now() - max(self._progress, min(oldest, default=_now()))
        return max(idle, self.worked())

    def worked(self) -> float:
        """Tell for how many seconds the oldest key has been worked on; or 0."""
        return _now() - min(self._active.values(), default=_now())

    def _elapsed(self, key: Key) -> None:
        self.add(key, self._timers.pop(key).lane)

    def _release(self, key: Key) -> Lane | None:
        self._progress = _now()
        _WORK.labels(self._name).observe(_now() - self._active.pop(key))
        return self._again.pop(key, None)

    def _measure(self) -> None:
        for lane, keys in self._lanes.items():
            _DEPTH.labels(self._name, lane.name.lower()).set(len(keys))


class TokenBucket:
    """Limits writes: `rate` a second, and up to `burst` at once."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._updated: float | None = None

    async def take(self) -> None:
        """Wait until a write is allowed."""
        self._fill()
        # Below zero are the writes that wait already: each new one waits for those, too.
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)

    def spare(self) -> bool:
        """Tell whether a write is allowed at once; if so, it is taken for made."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fill(self) -> None:
        now = _now()
        elapsed = 0.0 if self._updated is None else now - self._updated
        self._updated = now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)


def _now() -> float:
    return asyncio.get_running_loop().time()
